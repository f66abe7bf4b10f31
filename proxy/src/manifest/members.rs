//! A member as it is written on the command line: `[NAME=]ADDRESS[:PORT][,ADDRESS[:PORT]...]`.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use trivet_crds::wire::{Member, MemberState, is_reachable};

/// The port of an apiserver that names none.
const APISERVER_PORT: u16 = 6443;

/// A member of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMember(Member);

impl NamedMember {
    /// The member for the document.
    pub fn member(&self) -> &Member {
        &self.0
    }
}

impl FromStr for NamedMember {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, addresses) = match text.split_once('=') {
            Some((name, addresses)) => (Some(name), addresses),
            None => (None, text),
        };
        let sockets: Vec<_> = addresses.split(',').map(socket).collect::<Result<_, _>>()?;
        let first = *sockets.first().ok_or("must have an address")?;
        if let Some(other) = sockets.iter().find(|socket| socket.port() != first.port()) {
            let (port, other) = (first.port(), other.port());
            return Err(format!(
                "must have one port for all addresses of a member, and has {port} and {other}"
            ));
        }
        let name = match name {
            Some(name) => name.to_owned(),
            // Colons are not allowed in names.
            None => first.ip().to_string().replace(':', "-"),
        };
        if !is_name(&name) {
            return Err(format!(
                "must have a name of lower-case letters, digits, '-' and '.' before the '=', such as that of the master's node, and has {name:?}"
            ));
        }
        Ok(Self(Member {
            name,
            addresses: sockets.iter().map(SocketAddr::ip).collect(),
            port: first.port(),
            state: MemberState::Active,
            zone: String::new(),
            node_name: String::new(),
        }))
    }
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let alone = bare.unwrap_or(text).parse::<IpAddr>();
    let socket = match (alone, text.parse::<SocketAddr>()) {
        (Ok(address), _) => SocketAddr::new(address, APISERVER_PORT),
        (Err(_), Ok(socket)) => socket,
        (Err(_), Err(_)) => {
            return Err(format!(
                "must be IP addresses with or without a port, because a proxy resolves no names, and has {text:?}"
            ));
        }
    };
    if socket.ip().is_loopback() || !is_reachable(socket.ip()) {
        return Err(format!(
            "must have addresses under which the nodes reach the apiserver, and has {}",
            socket.ip()
        ));
    }
    Ok(socket)
}

/// The rule of `spec.members[].name`.
fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| is_inner(*byte) && !b"-.".contains(byte));
    let bytes = text.as_bytes();
    bytes.len() <= 253 && bytes.iter().copied().all(is_inner) && is_end(bytes.first()) && is_end(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Vec<String>, u16) {
        let NamedMember(member) = text.parse().unwrap();
        let addresses = member.addresses.iter().map(ToString::to_string).collect();
        (member.name, addresses, member.port)
    }

    #[test]
    fn a_member_has_a_name_of_its_own_or_that_of_its_address() {
        assert_eq!(
            parsed("master-1=10.0.0.11:443"),
            ("master-1".to_owned(), vec!["10.0.0.11".to_owned()], 443)
        );
        assert_eq!(
            parsed("10.0.0.11"),
            ("10.0.0.11".to_owned(), vec!["10.0.0.11".to_owned()], 6443)
        );
        assert_eq!(parsed("[fd00::11]:6443").0, "fd00--11");
    }

    #[test]
    fn a_member_may_have_addresses_of_both_families() {
        for text in [
            "m=10.0.0.11,fd00::11",
            "m=10.0.0.11:6443,[fd00::11]:6443",
            "m=10.0.0.11,[fd00::11]",
        ] {
            let addresses = vec!["10.0.0.11".to_owned(), "fd00::11".to_owned()];
            assert_eq!(parsed(text), ("m".to_owned(), addresses, 6443), "{text}");
        }
    }

    #[test]
    fn what_is_no_member_is_told_with_its_rule() {
        for (text, words) in [
            ("master-1", "resolves no names"),
            ("https://10.0.0.11:6443", "resolves no names"),
            ("10.0.0.11:70000", "resolves no names"),
            ("m=10.0.0.11:6443,10.0.1.11:443", "one port"),
            ("Master=10.0.0.11", "lower-case"),
            ("-m=10.0.0.11", "lower-case"),
            ("=10.0.0.11", "lower-case"),
            ("fd00::", "before the '='"),
            ("127.0.0.1:6443", "reach the apiserver"),
            ("0.0.0.0:6443", "reach the apiserver"),
            ("m=", "resolves no names"),
        ] {
            let error = text.parse::<NamedMember>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
