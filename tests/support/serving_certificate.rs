//! The certificate that a master's apiserver shows: replaced by one that ends soon, and put back.

use std::fs;

use anyhow::{Context as _, Result};
use trivet_testbed::Host;

use crate::inside;

/// Where kubeadm puts it, as the host sees it, and where its own is kept meanwhile.
const CERTIFICATE: &str = "/etc/kubernetes/pki/apiserver.crt";
const KEPT: &str = "/etc/kubernetes/pki/apiserver.crt.kept";

/// Signs the same certificate for 20 days; the next start of the apiserver shows it.
pub fn end_soon(host: &Host) -> Result<()> {
    let script = format!(
        "cd /etc/kubernetes/pki
         [ -e {KEPT} ] || cp -p {CERTIFICATE} {KEPT}
         openssl x509 -in {KEPT} -x509toreq -signkey apiserver.key -copy_extensions copy -out soon.csr
         openssl x509 -req -in soon.csr -copy_extensions copy -CA ca.crt -CAkey ca.key -set_serial 20 -days 20 -out soon.crt
         rm soon.csr
         mv soon.crt {CERTIFICATE}"
    );
    inside::script(host, &script)
}

/// Puts the host's own back. Returns whether it had another.
pub fn restore(host: &Host) -> Result<bool> {
    let kept = host.file(KEPT);
    if !kept.exists() {
        return Ok(false);
    }
    let own = host.file(CERTIFICATE);
    fs::rename(&kept, &own).with_context(|| format!("failed to put {} back", own.display()))?;
    Ok(true)
}
