//! Asks kubelets for their configuration, through the API server. It names their directory of static pods; it does not name
//! the API server that a kubelet uses, which only its kubeconfig on the node does.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use http::Request;
use kube::Client;
use serde::Deserialize;

use super::Unread;

/// Kubelets that are asked at once: each answer holds a connection of the API server to a node.
const WIDTH: usize = 16;

/// What the kubelets have said.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Their directories of static pods, by node; empty where they read none.
    pub(super) found: BTreeMap<String, String>,
    /// The first refusal or failure, which stands for all.
    pub(super) unread: Option<Unread>,
}

/// The part of `/configz` that is used (k8s.io/kubelet/config/v1beta1).
#[derive(Deserialize)]
struct Configz {
    kubeletconfig: KubeletConfiguration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KubeletConfiguration {
    #[serde(default)]
    static_pod_path: String,
}

/// The directory of static pods of each of these nodes.
pub(super) async fn static_pod_paths(client: &Client, nodes: Vec<String>) -> Answers {
    let asked = nodes.into_iter().map(|node| async move {
        let answer = ask(client, &node).await;
        (node, answer)
    });
    let mut asked = stream::iter(asked).buffer_unordered(WIDTH);
    let mut answers = Answers::default();
    while let Some((node, answer)) = asked.next().await {
        match answer {
            Ok(path) => {
                answers.found.insert(node, path);
            }
            Err(error) => {
                let what = format!("nodes/proxy (configz of {node})");
                answers.unread.get_or_insert_with(|| Unread::new(&what, error));
            }
        }
    }
    answers
}

async fn ask(client: &Client, node: &str) -> Result<String, kube::Error> {
    let request = Request::get(format!("/api/v1/nodes/{node}/proxy/configz"))
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    let configz: Configz = client.request(request).await?;
    Ok(configz.kubeletconfig.static_pod_path)
}
