//! IPv4 and IPv6, on both sides of the proxy (F21).

use anyhow::Result;
use trivet_lab::{Lab, Place};

use crate::support::{SECOND, empty};

async fn serves(lab: &mut Lab) -> Result<()> {
    lab.start_proxy()?;
    for member in ["cp1", "cp2"] {
        lab.proxy().comes_to_see(member, "Up").await?;
    }
    for client in [lab.client(), lab.client_v6()] {
        for _ in 0..4 {
            client.who().await?;
        }
    }
    Ok(())
}

#[test]
fn members_of_ipv4_only() -> Result<()> {
    empty(2, async |lab| {
        lab.start_apiservers(2, SECOND).await?;
        lab.write(&lab.whole_pool())?;
        serves(lab).await
    })
}

#[test]
fn members_of_ipv6_only() -> Result<()> {
    empty(2, async |lab| {
        lab.start_apiservers(2, SECOND).await?;
        let at = |index| vec![Place::Member(index).ipv6()];
        lab.write(&lab.pool().member_at("cp1", at(1)).member_at("cp2", at(2)))?;
        serves(lab).await
    })
}

#[test]
fn a_member_whose_ipv4_is_lost_is_used_by_its_ipv6() -> Result<()> {
    empty(1, async |lab| {
        lab.start_apiservers(1, SECOND).await?;
        let place = Place::Member(1);
        lab.write(&lab.pool().member_at("cp1", vec![place.ipv4(), place.ipv6()]))?;
        lab.start_proxy()?;
        lab.proxy().comes_to_see("cp1", "Up").await?;
        let deaf = "table inet family { chain arriving { type filter hook input priority 0; meta nfproto ipv4 drop; }; }";
        lab.rules(place, deaf).await?;
        for _ in 0..3 {
            lab.client().who().await?;
        }
        Ok(())
    })
}
