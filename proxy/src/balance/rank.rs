//! Rendezvous rank of a member on a node: how a fresh fleet spreads evenly without talking to each other.

/// The rank of `member` on `node`: the highest wins among equals. The same in every process and release, so that a
/// restart prefers the same member again, and different on every node.
pub fn rank(node: &str, member: &str) -> u64 {
    let bytes = node.bytes().chain([0]).chain(member.bytes());
    mix(bytes.fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    }))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The finaliser of MurmurHash3: FNV alone leaves names that differ in their last digit in the same order on most
/// nodes.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_fleet_spreads_evenly() {
        let members = ["cp1", "cp2", "cp3"];
        let mut first = [0_u32; 3];
        for node in 0..5000 {
            let node = format!("node-{node}");
            let best = (0..3).max_by_key(|&index| rank(&node, members[index])).unwrap();
            first[best] += 1;
        }
        let most = f64::from(*first.iter().max().unwrap());
        assert!(most / (5000.0 / 3.0) < 1.15, "{first:?}");
    }

    #[test]
    fn the_border_between_node_and_member_counts() {
        assert_ne!(rank("a", "bc"), rank("ab", "c"));
    }
}
