//! What the images of operator and proxies are called, and which releases run.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::ResourceExt;
use trivet_crds::pool::ApiserverPool;

use super::finding::Finding;
use super::kind::Kind;
use crate::read::{Facts, OPERATOR};

/// The label by which the chart says which release it installs.
const RELEASE: &str = "app.kubernetes.io/version";

pub(super) fn check(facts: &Facts, pool: &ApiserverPool) -> Vec<Finding> {
    let name = pool.name_any();
    let mut found = Vec::new();
    if let Some(set) = facts.proxies_of(&name) {
        let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let place = format!("DaemonSet {}", set.name_any());
        found.extend(pulled_at_every_start(pod, &place));
        found.extend(moves(pod, &place));
    }
    found.extend(releases_differ(facts, &name));
    found
}

/// The operator's own image, which is of no pool.
pub(super) fn of_operator(facts: &Facts) -> Option<Finding> {
    let deployment = facts.operator.as_ref()?.as_ref()?;
    let pod = deployment.spec.as_ref()?.template.spec.as_ref();
    moves(pod, &format!("Deployment {OPERATOR}"))
}

fn containers(pod: Option<&PodSpec>) -> impl Iterator<Item = &Container> {
    pod.into_iter().flat_map(|pod| &pod.containers)
}

fn pulled_at_every_start(pod: Option<&PodSpec>, place: &str) -> Option<Finding> {
    let pulled = containers(pod).find(|container| is_pulled_always(container))?;
    let image = pulled.image.clone().unwrap_or_default();
    let message = format!("imagePullPolicy of {image} is Always");
    Some(Finding::at(Kind::PulledAtEveryStart, place, message))
}

/// Without a policy the API server writes Always for the tag latest.
fn is_pulled_always(container: &Container) -> bool {
    container.image_pull_policy.as_deref() == Some("Always")
}

fn moves(pod: Option<&PodSpec>, place: &str) -> Option<Finding> {
    let mut images = containers(pod).filter_map(|container| container.image.as_deref());
    let image = images.find(|image| is_moving(image))?;
    let message = match tag(image) {
        None => format!("{image} has no tag, which means latest"),
        Some(_) => format!("the tag of {image} is latest"),
    };
    Some(Finding::at(Kind::ImageMoves, place, message))
}

/// Whether an image of this name is another one tomorrow.
fn is_moving(image: &str) -> bool {
    !image.contains('@') && tag(image).is_none_or(|tag| tag == "latest")
}

/// The tag of an image, behind the colon of its last part: one before is that of the registry's port.
fn tag(image: &str) -> Option<&str> {
    let last = image.rsplit('/').next()?;
    last.split_once(':').map(|(_, tag)| tag)
}

/// The releases of proxies other than the one that the chart has installed.
fn releases_differ(facts: &Facts, pool: &str) -> Option<Finding> {
    let deployment = facts.operator.as_ref()?.as_ref()?;
    let release = deployment.labels().get(RELEASE)?;
    let reports = facts
        .fresh_reports(pool)
        .into_iter()
        .map(|report| &report.content);
    let others = reports
        .filter(|report| report.proxy_version != *release && !report.proxy_version.is_empty())
        .map(|report| (report.node_name.clone(), report.proxy_version.clone()));
    let finding = Finding::on(Kind::ReleasesDiffer, pool, others.collect())?;
    let message = format!("the chart's release is {release}; {}", finding.message);
    Some(Finding { message, ..finding })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{facts, kinds, pool};

    /// What is found if the proxies' container is changed so.
    fn checked(change: impl FnOnce(&mut Container)) -> Vec<Finding> {
        let mut facts = facts();
        let set = &mut facts.daemon_sets.as_mut().unwrap()[0];
        let pod = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        change(&mut pod.containers[0]);
        check(&facts, &pool())
    }

    #[test]
    fn an_image_that_every_start_pulls_is_named() {
        let found = checked(|container| container.image_pull_policy = Some("Always".to_owned()));
        assert_eq!(kinds(&found), [Kind::PulledAtEveryStart]);
        assert_eq!(found[0].place, "DaemonSet trivet-default");
    }

    #[test]
    fn an_image_whose_name_means_another_one_tomorrow_is_named() {
        for (image, words) in [
            (
                "registry:5000/proxy",
                Some("registry:5000/proxy has no tag, which means latest"),
            ),
            ("proxy:latest", Some("the tag of proxy:latest is latest")),
            ("registry:5000/proxy:0.1.0", None),
            ("proxy@sha256:0123", None),
        ] {
            let found = checked(|container| container.image = Some(image.to_owned()));
            assert_eq!(found.first().map(|finding| finding.message.as_str()), words);
        }
    }

    #[test]
    fn the_operators_image_is_looked_at_too() {
        let mut facts = facts();
        assert_eq!(of_operator(&facts), None);
        let operator = facts.operator.as_mut().unwrap().as_mut().unwrap();
        let pod = operator
            .spec
            .as_mut()
            .unwrap()
            .template
            .spec
            .insert(PodSpec::default());
        pod.containers = vec![Container {
            image: Some("trivet-operator".to_owned()),
            ..Container::default()
        }];
        let found = of_operator(&facts).unwrap();
        assert_eq!(
            (found.kind, found.place.as_str()),
            (Kind::ImageMoves, "Deployment trivet-operator")
        );
    }

    #[test]
    fn a_proxy_of_another_release_than_the_charts_is_a_note_with_its_node() {
        let mut facts = facts();
        let operator = facts.operator.as_mut().unwrap().as_mut().unwrap();
        operator
            .labels_mut()
            .insert(RELEASE.to_owned(), "0.1.0".to_owned());
        assert_eq!(check(&facts, &pool()), []);
        facts.reports.as_mut().unwrap()[3].content.proxy_version = "0.0.9".to_owned();
        let found = check(&facts, &pool());
        assert_eq!(kinds(&found), [Kind::ReleasesDiffer]);
        assert_eq!(found[0].message, "the chart's release is 0.1.0; w1 (0.0.9)");
    }
}
