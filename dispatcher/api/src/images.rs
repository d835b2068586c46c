//! The images that pools may name, and the agents for them. Nodes are made by their provider, so a pool runs alike with
//! each of them; Azure's images are listed for programs that choose one from this list.

use model::refusal::Refusal;
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    call::Call,
    filter::holds,
    lists::{Paging, ROWS_MAX},
    odata,
    state::ApiState,
};

struct Image {
    /// Publisher, offer and SKU.
    name: &'static str,
    agent: &'static str,
    /// Capabilities of Azure's image of this name; programs look for them.
    capabilities: &'static [&'static str],
}

const fn plain(name: &'static str, agent: &'static str) -> Image {
    Image { name, agent, capabilities: &[] }
}

const fn docker(name: &'static str, agent: &'static str) -> Image {
    Image { name, agent, capabilities: &["DockerCompatible"] }
}

/// Sorted by name.
const IMAGES: &[Image] = &[
    plain("almalinux/almalinux/9-gen2", "batch.node.el 9"),
    plain("canonical/0001-com-ubuntu-server-focal/20_04-lts", "batch.node.ubuntu 20.04"),
    plain("canonical/0001-com-ubuntu-server-jammy/22_04-lts", "batch.node.ubuntu 22.04"),
    plain("canonical/ubuntu-24_04-lts/server", "batch.node.ubuntu 24.04"),
    plain("canonical/ubuntuserver/18.04-lts", "batch.node.ubuntu 18.04"),
    plain("debian/debian-11/11", "batch.node.debian 11"),
    plain("debian/debian-12/12", "batch.node.debian 12"),
    docker("microsoft-azure-batch/ubuntu-server-container/20-04-lts", "batch.node.ubuntu 20.04"),
    docker("microsoft-dsvm/ubuntu-hpc/2204", "batch.node.ubuntu 22.04"),
    docker("microsoft-dsvm/ubuntu-hpc/2404", "batch.node.ubuntu 24.04"),
    plain("piecework/host/linux", "piecework.node.linux"),
];

impl Image {
    fn reference(&self) -> Value {
        let mut parts = self.name.split('/');
        let mut part = || parts.next().unwrap_or_default();
        json!({"publisher": part(), "offer": part(), "sku": part(), "version": "latest"})
    }

    fn shown(&self) -> Vec<u8> {
        let mut shown = json!({
            "nodeAgentSKUId": self.agent,
            "imageReference": self.reference(),
            "osType": "linux",
            "verificationType": "verified",
        });
        if !self.capabilities.is_empty() {
            shown["capabilities"] = json!(self.capabilities);
        }
        shown.to_string().into_bytes()
    }

    fn value_of(&self, path: &str) -> Option<String> {
        let value = match path {
            "osType" => "linux",
            "verificationType" => "verified",
            "nodeAgentSKUId" => self.agent,
            _ => return None,
        };
        Some(value.to_owned())
    }
}

/// A page of what passes the request's filter, `rows` in the order of their ids.
fn page<R>(
    call: &Call,
    kind: &str,
    rows: Vec<R>,
    id: impl Fn(&R) -> &str,
    value_of: impl Fn(&R, &str) -> Option<String>,
    show: impl Fn(&R) -> Vec<u8>,
) -> Result<Answer, Refusal> {
    let paging = Paging::read(call, ROWS_MAX)?;
    let filter = call.query.text("$filter")?.map(|text| odata::parse(text).map(|filter| (text, filter))).transpose()?;
    let mut passing = Vec::new();
    for row in rows {
        let is_wanted = match &filter {
            None => true,
            Some((text, filter)) => holds(filter, &|path| value_of(&row, path)).map_err(|reason| odata::refused(text, &reason))?,
        };
        if is_wanted && paging.after.as_deref().is_none_or(|after| id(&row) > after) && passing.len() <= paging.rows_max {
            passing.push(row);
        }
    }
    Ok(paging.answer(call, kind, &passing, id, show))
}

/// A page of the images.
pub async fn list(_api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let rows = IMAGES.iter().collect();
    page(call, "supportedimages", rows, |image: &&Image| image.name, |image, path| image.value_of(path), |image| image.shown())
}

/// A page of the agents with their images, the form of API versions before 2019-08-01.
pub async fn agents(_api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let mut names: Vec<&'static str> = IMAGES.iter().map(|image| image.agent).collect();
    names.sort_unstable();
    names.dedup();
    let show = |agent: &&'static str| {
        let images: Vec<_> = IMAGES.iter().filter(|image| image.agent == *agent).map(Image::reference).collect();
        json!({"id": agent, "verifiedImageReferences": images, "osType": "linux"}).to_string().into_bytes()
    };
    let value_of = |agent: &&'static str, path: &str| match path {
        "osType" => Some("linux".to_owned()),
        "id" => Some((*agent).to_owned()),
        _ => None,
    };
    page(call, "nodeagentskus", names, |agent| *agent, value_of, show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_in_order_and_have_three_parts() {
        assert!(IMAGES.is_sorted_by(|one, other| one.name < other.name));
        assert!(IMAGES.iter().all(|image| image.name.split('/').count() == 3));
    }
}
