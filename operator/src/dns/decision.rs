//! What is written and deleted for the names of a pool. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use kube::api::DynamicObject;
use tokio::time::Instant;
use trivet_crds::POOL_LABEL;

use super::damping::Damping;
use super::render::{self, SERVICE_NAME, record_sets};
use super::wish::{Candidate, Facts, Records, Wish};

/// The objects of pools that are there.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// The Services.
    pub services: Vec<Service>,
    /// The EndpointSlices.
    pub slices: Vec<EndpointSlice>,
    /// The DNSEndpoints; `None` where the API server does not know the kind.
    pub records: Option<Vec<DynamicObject>>,
    /// Why they are not known though they may be there: the words of the API server that refuses to tell.
    pub refused: Option<String>,
}

impl Live {
    /// Those of one pool.
    #[must_use]
    pub fn of(&self, pool: &str) -> Self {
        Self {
            services: of_pool(&self.services, pool),
            slices: of_pool(&self.slices, pool),
            records: self.records.as_ref().map(|records| of_pool(records, pool)),
            refused: self.refused.clone(),
        }
    }

    /// All of them, the Services first, so that none is without its slices.
    pub fn into_objects(self) -> impl Iterator<Item = Object> {
        let services = self.services.into_iter().map(Object::from);
        let slices = self.slices.into_iter().map(Object::from);
        let records = self.records.into_iter().flatten().map(Object::from);
        services.chain(slices).chain(records)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.slices.is_empty() && self.records.iter().flatten().next().is_none()
    }

    /// The addresses that the EndpointSlices of this Service say are ready.
    pub fn ready(&self, service: &str) -> BTreeSet<SocketAddr> {
        let of_service = self.slices.iter().filter(|slice| is_of(slice, service));
        of_service.flat_map(sockets).collect()
    }

    /// The addresses that the DNSEndpoint has.
    pub fn targets(&self) -> BTreeSet<IpAddr> {
        let sets = self
            .records
            .iter()
            .flatten()
            .flat_map(|object| record_sets(object).endpoints);
        let targets = sets.flat_map(|set| set.targets);
        targets.filter_map(|target| target.parse().ok()).collect()
    }

    /// What the objects say that are there: while a spec is not obeyed, it stays.
    fn wish(&self) -> Wish {
        let records = self.records.iter().flatten().next().map(record_sets);
        let first = records.and_then(|records| records.endpoints.into_iter().next());
        Wish {
            service: self.services.first().map(ResourceExt::name_any),
            external: first.map(|set| Records {
                hostname: set.dns_name,
                ttl_seconds: u32::try_from(set.record_ttl).unwrap_or(u32::MAX),
            }),
        }
    }

    /// Notes what a write has made of an object.
    pub fn note(&mut self, written: Object) {
        match written {
            Object::Service(object) => replace(&mut self.services, *object),
            Object::Slice(object) => replace(&mut self.slices, *object),
            Object::Records(object) => replace(self.records.get_or_insert_default(), *object),
        }
    }

    /// Notes that an object is gone.
    pub fn forget(&mut self, gone: &Object) {
        let name = gone.name();
        match gone {
            Object::Service(_) => self.services.retain(|object| object.name_any() != name),
            Object::Slice(_) => self.slices.retain(|object| object.name_any() != name),
            Object::Records(_) => {
                if let Some(records) = &mut self.records {
                    records.retain(|object| object.name_any() != name);
                }
            }
        }
    }
}

/// An object behind a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// The headless Service.
    Service(Box<Service>),
    /// Its endpoints of one family.
    Slice(Box<EndpointSlice>),
    /// The records of external-dns.
    Records(Box<DynamicObject>),
}

impl Object {
    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Self::Service(object) => object.name_any(),
            Self::Slice(object) => object.name_any(),
            Self::Records(object) => object.name_any(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "Service",
            Self::Slice(_) => "EndpointSlice",
            Self::Records(_) => "DNSEndpoint",
        }
    }
}

impl From<Service> for Object {
    fn from(object: Service) -> Self {
        Self::Service(Box::new(object))
    }
}

impl From<EndpointSlice> for Object {
    fn from(object: EndpointSlice) -> Self {
        Self::Slice(Box::new(object))
    }
}

impl From<DynamicObject> for Object {
    fn from(object: DynamicObject) -> Self {
        Self::Records(Box::new(object))
    }
}

/// What a look at a pool's names has decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The objects to write, in this order, each with the resourceVersion that it replaces.
    pub apply: Vec<(Object, Option<String>)>,
    /// The objects to delete afterwards.
    pub delete: Vec<Object>,
    /// Which names are wanted.
    pub wish: Wish,
    /// Whether no Active member is Up, so that all are published.
    pub is_open: bool,
}

/// The pool, and the namespace of its objects.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The pool.
    pub pool: &'a str,
    /// The namespace.
    pub namespace: &'a str,
}

/// Decides about the names of a pool; `live` has only its objects. Nothing is published, and nothing changes, while no
/// member is known.
pub fn decide(place: Place<'_>, facts: &Facts, live: &Live, damping: &mut Damping, now: Instant) -> Decision {
    let wish = facts.wish.clone().unwrap_or_else(|| live.wish());
    let mut decision = Decision::default();
    let eligible = eligible(&facts.candidates);
    if !eligible.is_empty() {
        if let Some(name) = &wish.service {
            let (ready, is_open) = ready(&eligible, &live.ready(name));
            decision.is_open |= is_open;
            decision
                .apply
                .extend(with_service(place, name, &facts.candidates, &ready, live));
        }
        match (&wish.external, &live.records) {
            (Some(records), Some(in_place)) => {
                if !damping.has_begun() {
                    *damping = Damping::resume(&live.targets());
                }
                let targets = damping.observe(&by_address(&eligible), now);
                decision.is_open |= damping.is_open();
                let object = render::records(place.pool, place.namespace, records, &targets);
                decision.apply.extend(with_records(object, in_place));
            }
            (None, _) | (_, None) => *damping = Damping::default(),
        }
    }
    decision.delete = unwanted(place.pool, &wish, &facts.candidates, live);
    decision.wish = wish;
    decision
}

/// The addresses of the Active members; where there is none, those that drain are the last resort.
fn eligible(candidates: &[Candidate]) -> Vec<&Candidate> {
    let are = |drains| {
        let found = candidates
            .iter()
            .filter(move |candidate| candidate.drains == drains);
        found.collect::<Vec<_>>()
    };
    let active = are(false);
    if active.is_empty() { are(true) } else { active }
}

/// Those of them that resolvers give, and whether these are all because none is Up. What is not known stays as `published` has it;
/// where none is left then, it is given before what is known not to be Up.
fn ready(eligible: &[&Candidate], published: &BTreeSet<SocketAddr>) -> (BTreeSet<SocketAddr>, bool) {
    let those = |are: &dyn Fn(&Candidate) -> bool| -> BTreeSet<_> {
        let found = eligible.iter().filter(|candidate| are(candidate));
        found.map(|candidate| candidate.socket).collect()
    };
    let ready = those(&|candidate| {
        candidate
            .is_up
            .unwrap_or_else(|| published.contains(&candidate.socket))
    });
    if !ready.is_empty() {
        return (ready, false);
    }
    let unknown = those(&|candidate| candidate.is_up.is_none());
    if unknown.is_empty() {
        (those(&|_| true), true)
    } else {
        (unknown, false)
    }
}

fn by_address(eligible: &[&Candidate]) -> BTreeMap<IpAddr, Option<bool>> {
    let mut seen = BTreeMap::new();
    for candidate in eligible {
        let is_up = seen.entry(candidate.socket.ip()).or_insert(candidate.is_up);
        // The same address at two ports.
        *is_up = (*is_up).max(candidate.is_up);
    }
    seen
}

/// The Service and its slices, as far as they are not in place. The slices come first: a Service without them has no answer.
fn with_service(
    place: Place<'_>,
    name: &str,
    candidates: &[Candidate],
    ready: &BTreeSet<SocketAddr>,
    live: &Live,
) -> Vec<(Object, Option<String>)> {
    let Place { pool, namespace } = place;
    let mut found = Vec::new();
    for slice in render::slices(pool, namespace, name, candidates, ready) {
        let in_place = named(&live.slices, &slice.name_any());
        if in_place.is_none_or(|old| !is_same_slice(&slice, old)) {
            found.push((slice.into(), in_place.and_then(ResourceExt::resource_version)));
        }
    }
    let service = render::service(pool, namespace, name, candidates);
    let in_place = named(&live.services, name);
    if in_place.is_none_or(|old| !is_same_service(&service, old)) {
        found.push((service.into(), in_place.and_then(ResourceExt::resource_version)));
    }
    found
}

fn with_records(object: DynamicObject, in_place: &[DynamicObject]) -> Option<(Object, Option<String>)> {
    let old = named(in_place, &object.name_any());
    let is_same = old.is_some_and(|old| record_sets(old) == record_sets(&object) && has_labels(&object, old));
    (!is_same).then(|| (object.into(), old.and_then(ResourceExt::resource_version)))
}

/// What the pool has and the spec does not want: Services first, so that none is without its slices.
fn unwanted(pool: &str, wish: &Wish, candidates: &[Candidate], live: &Live) -> Vec<Object> {
    let services = live.services.iter();
    let services = services.filter(|service| wish.service.as_ref() != Some(&service.name_any()));
    let wanted = |service: &String| {
        let slices = render::slices(pool, "", service, candidates, &BTreeSet::new());
        slices.iter().map(ResourceExt::name_any).collect::<BTreeSet<_>>()
    };
    let wanted = wish.service.as_ref().map(wanted).unwrap_or_default();
    let is_kept = |slice: &&EndpointSlice| {
        wanted.contains(&slice.name_any())
            || candidates.is_empty() && wish.service.as_ref().is_some_and(|service| is_of(slice, service))
    };
    let slices = live.slices.iter().filter(|slice| !is_kept(slice));
    let name = render::records_name(pool);
    let records = live.records.iter().flatten();
    let records = records.filter(|object| wish.external.is_none() || object.name_any() != name);
    services
        .cloned()
        .map(Object::from)
        .chain(slices.cloned().map(Object::from))
        .chain(records.cloned().map(Object::from))
        .collect()
}

/// Whether a write would change nothing of what the operator writes.
fn is_same_slice(rendered: &EndpointSlice, live: &EndpointSlice) -> bool {
    rendered.address_type == live.address_type
        && rendered.endpoints == live.endpoints
        && rendered.ports == live.ports
        && has_labels(rendered, live)
}

fn is_same_service(rendered: &Service, live: &Service) -> bool {
    let said = |service: &Service| service.spec.clone().unwrap_or_default();
    let (rendered_spec, live_spec) = (said(rendered), said(live));
    let ports = |spec: &ServiceSpec| spec.ports.clone().unwrap_or_default();
    let in_place = ports(&live_spec);
    rendered_spec.type_ == live_spec.type_
        && rendered_spec.cluster_ip == live_spec.cluster_ip
        && ports(&rendered_spec).iter().all(|port| in_place.contains(port))
        && has_labels(rendered, live)
}

fn has_labels(rendered: &impl ResourceExt, live: &impl ResourceExt) -> bool {
    let live = live.labels();
    let mut labels = rendered.labels().iter();
    labels.all(|(key, value)| live.get(key) == Some(value))
}

fn is_of(slice: &EndpointSlice, service: &str) -> bool {
    slice
        .labels()
        .get(SERVICE_NAME)
        .is_some_and(|name| name == service)
}

fn sockets(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let port = slice.ports.iter().flatten().find_map(|port| port.port);
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
    let is_ready = |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let addresses = slice.endpoints.iter().filter(is_ready);
    let addresses = addresses.flat_map(|endpoint| &endpoint.addresses);
    addresses
        .filter_map(|address| Some(SocketAddr::new(address.parse().ok()?, port)))
        .collect()
}

fn of_pool<K: ResourceExt + Clone>(objects: &[K], pool: &str) -> Vec<K> {
    let is_its = |object: &&K| object.labels().get(POOL_LABEL).is_some_and(|of| of == pool);
    objects.iter().filter(is_its).cloned().collect()
}

fn named<'a, K: ResourceExt>(objects: &'a [K], name: &str) -> Option<&'a K> {
    objects.iter().find(|object| object.name_any() == name)
}

fn replace<K: ResourceExt>(objects: &mut Vec<K>, object: K) {
    let name = object.name_any();
    objects.retain(|old| old.name_any() != name);
    objects.push(object);
}

#[cfg(test)]
mod tests;
