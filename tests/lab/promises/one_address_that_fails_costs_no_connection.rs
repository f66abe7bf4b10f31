//! One address of a member fails and another answers (F22): only connections over that address are cut, new ones take the
//! other, and the member stays Up.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep, sleep_until};
use trivet_lab::{Authority, Dates, Family, Fault, Lab, Place, Pool};

use crate::support::{
    SECOND, SHUTDOWN_DELAY, WARM_UP, assert_none_cut, assert_none_failed, assert_none_slower, assert_within,
    empty,
};

const SLOW: Duration = Duration::from_millis(300);
const CUT: Duration = Duration::from_millis(2900);

/// How long the test goes on after the fault: by then every client must have recovered.
const LOOK_ON: Duration = Duration::from_secs(6);

/// A pool of so many members, each with its IPv4 address first and its IPv6 address second.
fn dual_stack(lab: &Lab, members: u8) -> Pool {
    (1..=members).map(Place::Member).fold(lab.pool(), |pool, place| {
        pool.member_at(&place.name(), vec![place.ipv4(), place.ipv6()])
    })
}

/// Starts the proxy with this pool, and waits until each of these members is Up.
async fn serve(lab: &mut Lab, pool: &Pool, members: &[&str]) -> Result<()> {
    lab.write(pool)?;
    lab.start_proxy()?;
    for member in members {
        lab.proxy().comes_to_see(member, "Up").await?;
    }
    Ok(())
}

async fn downs(lab: &Lab, member: &str) -> Option<u64> {
    let line = format!("trivet_proxy_upstream_transitions_total{{member=\"{member}\",to=\"Down\"}}");
    lab.proxy().metric(&line).await
}

fn the_address_in_use_falls_silent(members: u8) -> Result<()> {
    empty(members, async move |lab| {
        lab.start_apiservers(members, SHUTDOWN_DELAY).await?;
        let pool = dual_stack(lab, members);
        serve(lab, &pool, &["cp1"]).await?;
        // Both addresses of all members are proven.
        sleep(WARM_UP).await;
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        let held = watches.on("cp1");
        assert!(held > 0, "cp1 has no watch to lose");
        lab.strike(Place::Member(1), Fault::BlackholeOf(Family::V4))
            .await?;
        let struck = Instant::now();
        sleep_until(struck + LOOK_ON).await;
        let record = attempts.finish().await?.since(struck);
        println!("{record}");
        assert_none_failed(&record);
        assert_none_slower(&record, SLOW);
        assert!(record.answered_by("cp1") > 0, "cp1 is not used by its IPv6");
        let ended = watches.ended_since(struck);
        assert_eq!(ended.len(), held, "{ended:?}");
        for stay in &ended {
            let (at, how) = stay.end.unwrap();
            assert_eq!(stay.member, "cp1", "{stay:?}");
            assert_eq!(how, Err(std::io::ErrorKind::ConnectionReset), "{stay:?}");
            assert_within("a watch was cut", struck, at, CUT, &record);
        }
        assert!(lab.proxy().sees("cp1", "Up").await, "cp1 is not Up");
        assert_eq!(downs(lab, "cp1").await, Some(0), "cp1 was Down");
        Ok(())
    })
}

#[test]
fn the_address_in_use_of_one_of_three_members_falls_silent() -> Result<()> {
    the_address_in_use_falls_silent(3)
}

#[test]
fn the_address_in_use_of_the_only_member_falls_silent() -> Result<()> {
    the_address_in_use_falls_silent(1)
}

#[test]
fn one_address_refuses_and_others_are_a_strangers() -> Result<()> {
    empty(4, async |lab| {
        lab.start_apiservers(4, SHUTDOWN_DELAY).await?;
        let other = Authority::new()?.sign(lab.disk(), "other", Dates::Good)?;
        lab.apiservers[3].show(other).await?;
        lab.strike(Place::Member(1), Fault::RejectOf(Family::V4)).await?;
        let stranger = Place::Member(4).ipv4();
        let [first, second, third] = [1, 2, 3].map(Place::Member);
        let pool = lab
            .pool()
            .member_at("cp1", vec![first.ipv4(), first.ipv6()])
            .member_at("cp2", vec![stranger, second.ipv4()])
            .member_at("cp3", vec![third.ipv4(), stranger]);
        serve(lab, &pool, &["cp1", "cp2", "cp3"]).await?;
        let attempts = lab.attempts();
        sleep(4 * SECOND).await;
        let record = attempts.finish().await?;
        println!("{record}");
        assert_none_failed(&record);
        assert_none_slower(&record, Duration::from_millis(100));
        for member in ["cp1", "cp2", "cp3"] {
            assert!(record.answered_by(member) > 0, "{member} is not used: {record}");
        }
        let counts = lab.apiservers[3].counts().await?;
        assert!(counts.readyz > 0, "the stranger was not probed: {counts:?}");
        assert_eq!(counts.requests, 0, "a stranger got a client");
        // The two probers keep one connection each; more would be of clients.
        assert!(
            counts.connections <= 10,
            "clients are sent to a stranger: {counts:?}"
        );
        Ok(())
    })
}

/// The nftables rules of the node that drop IPv4 to and from so many members, but not to the reference. They are removed in
/// one transaction: if members came back one after another, the rest would be silent alone for a moment.
fn without_ipv4_to(members: u8) -> String {
    let addresses: Vec<_> = (1..=members)
        .map(|member| Place::Member(member).ipv4().to_string())
        .collect();
    let addresses = addresses.join(", ");
    format!(
        "table inet family {{\n\
           chain arriving {{ type filter hook input priority 0; ip saddr {{ {addresses} }} drop; }}\n\
           chain leaving {{ type filter hook output priority 0; ip daddr {{ {addresses} }} drop; }}\n\
         }}\n"
    )
}

#[test]
fn one_family_falls_silent_at_all_members_for_five_seconds() -> Result<()> {
    empty(3, async |lab| {
        lab.start_apiservers(3, SHUTDOWN_DELAY).await?;
        let pool = dual_stack(lab, 3);
        serve(lab, &pool, &["cp1", "cp2", "cp3"]).await?;
        sleep(WARM_UP).await;
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        lab.rules(Place::Node, &without_ipv4_to(3)).await?;
        // A handshake in progress waits for the kernel's next retransmission.
        let struck = Instant::now();
        sleep(5 * SECOND).await;
        lab.rules(Place::Node, "delete table inet family").await?;
        sleep(4 * SECOND).await;
        let record = attempts.finish().await?.since(struck);
        println!("{record}");
        assert_none_failed(&record);
        assert_none_slower(&record, SECOND);
        assert_none_cut(&watches, struck);
        for member in ["cp1", "cp2", "cp3"] {
            assert!(record.answered_by(member) > 0, "{member} is not used: {record}");
            assert_eq!(downs(lab, member).await, Some(0), "{member} was Down");
        }
        Ok(())
    })
}

#[test]
fn an_address_is_added_and_the_order_changes() -> Result<()> {
    empty(2, async |lab| {
        lab.start_apiservers(2, SHUTDOWN_DELAY).await?;
        let [first, second] = [1, 2].map(Place::Member);
        let with = |lab: &Lab, addresses| lab.pool().member_at("cp1", addresses).member(second);
        let pool = with(lab, vec![first.ipv4()]);
        serve(lab, &pool, &["cp1", "cp2"]).await?;
        let watches = lab.watches(6).await;
        let attempts = lab.attempts();
        let started = Instant::now();
        let orders = [
            vec![first.ipv4(), first.ipv6()],
            vec![first.ipv6(), first.ipv4()],
            vec![first.ipv4(), first.ipv6()],
        ];
        for (revision, addresses) in (2..).zip(orders) {
            lab.write(&with(lab, addresses).revision(revision))?;
            lab.proxy().follows(revision).await?;
            sleep(2 * SECOND).await;
        }
        let record = attempts.finish().await?;
        println!("{record}");
        assert_none_failed(&record);
        assert_none_slower(&record, Duration::from_millis(100));
        assert_none_cut(&watches, started);
        assert_eq!(lab.proxy().ended("MemberDrained").await, 0);
        Ok(())
    })
}

#[test]
fn an_address_is_taken_away() -> Result<()> {
    empty(2, async |lab| {
        lab.start_apiservers(2, SHUTDOWN_DELAY).await?;
        let [first, second] = [1, 2].map(Place::Member);
        let pool = dual_stack(lab, 2);
        serve(lab, &pool, &["cp1", "cp2"]).await?;
        let watches = lab.watches(6).await;
        let (held, started) = (watches.on("cp1"), Instant::now());
        assert!(held > 0, "cp1 has no watch to lose");
        let drain = 3;
        let pool = lab.pool().member_at("cp1", vec![first.ipv6()]);
        let pool = pool.member_at("cp2", vec![second.ipv4(), second.ipv6()]);
        lab.write(&pool.revision(2).drain_within(drain))?;
        lab.proxy().follows(2).await?;
        sleep(SECOND * (drain + 1)).await;
        let ended = watches.ended_since(started);
        assert_eq!(ended.len(), held, "all of cp1's were by IPv4: {ended:?}");
        assert!(ended.iter().all(|stay| stay.member == "cp1"), "{ended:?}");
        assert_eq!(watches.on("cp1") + watches.on("cp2"), 6, "all are back");
        Ok(())
    })
}

#[test]
fn a_mistyped_address_is_not_trusted_where_the_right_ones_are_gone() -> Result<()> {
    empty(2, async |lab| {
        lab.start_apiservers(2, SECOND).await?;
        let other = Authority::new()?.sign(lab.disk(), "other", Dates::Good)?;
        lab.apiservers[1].show(other).await?;
        let addresses = vec![Place::Member(1).ipv4(), Place::Member(2).ipv4()];
        let pool = lab.pool().member_at("cp1", addresses);
        serve(lab, &pool, &["cp1"]).await?;
        lab.client().who().await?;
        lab.apiservers[0].kill().await?;
        for _ in 0..20 {
            assert!(lab.client().who().await.is_err(), "an apiserver serves");
        }
        let counts = lab.apiservers[1].counts().await?;
        assert_eq!(counts.requests, 0, "a stranger got a client");
        Ok(())
    })
}
