//! How the node confines the standby. It must be confined as the other proxies of its pool are, or they cannot meet.

use std::{fmt, str::FromStr};

use serde_json::{Map, Value, json};

/// AppArmor and SELinux of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The pool's `spec.proxy.appArmorProfile`.
    pub app_armor: AppArmorProfile,
    /// The type of the pool's `spec.proxy.seLinuxOptions`, if it has one.
    pub se_linux_type: Option<SeLinuxType>,
    /// The level of these, if they have one.
    pub se_linux_level: Option<SeLinuxLevel>,
}

/// A profile of AppArmor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AppArmorProfile {
    /// None. AppArmor's default profile denies unix sockets on some kernels: the proxies could not meet.
    #[default]
    Unconfined,
    /// That of the container runtime.
    RuntimeDefault,
    /// A profile that is loaded on the node, by name.
    Localhost(String),
}

/// A type of SELinux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeLinuxType(String);

/// A level of SELinux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeLinuxLevel(String);

/// The longest name that AppArmor has.
const LONGEST_NAME: usize = 4095;

/// The longest type or level that is taken: those of the policies in use are far shorter.
const LONGEST_OPTION: usize = 256;

impl Default for Confinement {
    /// SELinux gives each pod categories of its own, unless its type and level are set.
    fn default() -> Self {
        Self {
            app_armor: AppArmorProfile::default(),
            se_linux_type: Some(SeLinuxType("spc_t".to_owned())),
            se_linux_level: Some(SeLinuxLevel("s0".to_owned())),
        }
    }
}

impl Confinement {
    /// The fields `appArmorProfile` and `seLinuxOptions`.
    pub(super) fn app_armor_profile(&self) -> Value {
        match &self.app_armor {
            AppArmorProfile::Unconfined => json!({"type": "Unconfined"}),
            AppArmorProfile::RuntimeDefault => json!({"type": "RuntimeDefault"}),
            AppArmorProfile::Localhost(name) => json!({"localhostProfile": name, "type": "Localhost"}),
        }
    }

    pub(super) fn se_linux_options(&self) -> Value {
        let level = self.se_linux_level.as_ref().map(|level| ("level", &level.0));
        let kind = self.se_linux_type.as_ref().map(|kind| ("type", &kind.0));
        let options = [level, kind].into_iter().flatten();
        let options: Map<_, _> = options
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        Value::Object(options)
    }
}

impl FromStr for AppArmorProfile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "Unconfined" => Ok(Self::Unconfined),
            "RuntimeDefault" => Ok(Self::RuntimeDefault),
            text => match text.strip_prefix("Localhost/") {
                Some(name) if is_graphic(name, LONGEST_NAME) => Ok(Self::Localhost(name.to_owned())),
                Some(_) | None => Err(
                    "must be Unconfined, RuntimeDefault, or Localhost/ and the name of a profile on the node",
                ),
            },
        }
    }
}

impl fmt::Display for AppArmorProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconfined => f.write_str("Unconfined"),
            Self::RuntimeDefault => f.write_str("RuntimeDefault"),
            Self::Localhost(name) => write!(f, "Localhost/{name}"),
        }
    }
}

impl FromStr for SeLinuxType {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if is_graphic(text, LONGEST_OPTION) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be a type of SELinux, such as spc_t")
        }
    }
}

impl FromStr for SeLinuxLevel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":,.-".contains(&byte);
        if is_graphic(text, LONGEST_OPTION) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be a level of SELinux, such as s0 or s0:c123,c456")
        }
    }
}

fn is_graphic(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_one_of_those_of_a_pod() {
        for profile in [
            "Unconfined",
            "RuntimeDefault",
            "Localhost/trivet",
            "Localhost//usr/bin/x",
        ] {
            let parsed: AppArmorProfile = profile.parse().unwrap();
            assert_eq!(parsed.to_string(), profile);
        }
        for profile in [
            "",
            "unconfined",
            "Localhost",
            "Localhost/",
            "Localhost/a b",
            "Localhost/a\n",
        ] {
            assert!(profile.parse::<AppArmorProfile>().is_err(), "{profile}");
        }
    }

    #[test]
    fn options_of_se_linux_are_words_of_its_policy() {
        for kind in ["spc_t", "container_t"] {
            assert!(kind.parse::<SeLinuxType>().is_ok(), "{kind}");
        }
        for level in ["s0", "s0:c123,c456", "s0-s15:c0.c1023"] {
            assert!(level.parse::<SeLinuxLevel>().is_ok(), "{level}");
        }
        for odd in ["", "$(X)", "a b", "a\nb", "\"", "ä"] {
            assert!(odd.parse::<SeLinuxType>().is_err(), "{odd}");
            assert!(odd.parse::<SeLinuxLevel>().is_err(), "{odd}");
        }
    }
}
