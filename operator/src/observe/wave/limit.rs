//! What the pods of a template may use. Pure.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// How much memory a proxy of this template may use, in MiB.
pub(super) fn memory_mebibytes(template: &PodTemplateSpec) -> Option<u32> {
    let container = template.spec.as_ref()?.containers.first()?;
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    mebibytes(&limits.get("memory")?.0)
}

/// A quantity of bytes as the API server writes it: without a fraction, and with the largest unit that needs none.
fn mebibytes(quantity: &str) -> Option<u32> {
    const UNITS: [(&str, u64); 9] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((quantity.strip_suffix(suffix)?, unit)))?;
    let bytes = number.parse::<u64>().ok()?.checked_mul(*unit)?;
    u32::try_from(bytes >> 20).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limit(memory: &str) -> Option<u32> {
        let template = json!({
            "spec": { "containers": [{ "name": "proxy", "resources": { "limits": { "memory": memory } } }] },
        });
        memory_mebibytes(&serde_json::from_value(template).unwrap())
    }

    #[test]
    fn a_limit_is_read_in_every_unit_that_the_api_server_writes() {
        let limits = ["64Mi", "2Gi", "131072Ki", "128M", "134217728", "1k"].map(limit);
        assert_eq!(
            limits,
            [Some(64), Some(2048), Some(128), Some(122), Some(128), Some(0)]
        );
        assert_eq!([limit("1500m"), limit("")], [None, None]);
        assert_eq!(memory_mebibytes(&PodTemplateSpec::default()), None);
    }
}
