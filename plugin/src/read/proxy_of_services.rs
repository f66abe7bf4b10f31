//! The API server that kube-proxy uses, by the ConfigMap that kubeadm makes for it.

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;

/// The key of the kubeconfig in the ConfigMap `kube-system/kube-proxy`.
const KEY: &str = "kubeconfig.conf";

/// The part of a kubeconfig that is used. What else is in it is not kept: it may hold credentials.
#[derive(Deserialize)]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    server: String,
}

/// The server that the ConfigMap of kube-proxy names, if it is one as kubeadm makes it.
pub fn server(map: &ConfigMap) -> Option<String> {
    let text = map.data.as_ref()?.get(KEY)?;
    let kubeconfig: Kubeconfig = serde_saphyr::from_str(text).ok()?;
    let server = kubeconfig.clusters.into_iter().next()?.cluster.server;
    (!server.is_empty()).then_some(server)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_server_of_kubeadms_config_map_is_read() {
        let map = |text: &str| serde_json::from_value(json!({ "data": { KEY: text } })).unwrap();
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority: /var/run/ca.crt\n    \
                    server: https://10.0.0.11:6443\n  name: default\nusers:\n- name: default\n  user:\n    tokenFile: /t\n";
        assert_eq!(server(&map(text)).as_deref(), Some("https://10.0.0.11:6443"));
        for other in ["", "clusters: []", "clusters: [{cluster: {}}]", "not a mapping"] {
            assert_eq!(server(&map(other)), None, "{other}");
        }
        assert_eq!(server(&ConfigMap::default()), None);
    }
}
