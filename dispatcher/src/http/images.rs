//! The images that pools may name. Nodes are what their provider makes, so a pool runs alike under each name:
//! Azure's are listed for programs that pick an image from this list.

use serde_json::json;

use crate::{
    http::{
        answer::Answer,
        call::Call,
        entrance::Door,
        filter::holds,
        lists::{Paging, ROWS_MAX},
        odata,
    },
    refusal::Refusal,
};

struct Image {
    /// Publisher, offer and SKU.
    name: &'static str,
    agent: &'static str,
}

/// In the order of their names.
const IMAGES: &[Image] = &[
    Image { name: "almalinux/almalinux/9-gen2", agent: "batch.node.el 9" },
    Image { name: "canonical/0001-com-ubuntu-server-focal/20_04-lts", agent: "batch.node.ubuntu 20.04" },
    Image { name: "canonical/0001-com-ubuntu-server-jammy/22_04-lts", agent: "batch.node.ubuntu 22.04" },
    Image { name: "canonical/ubuntu-24_04-lts/server", agent: "batch.node.ubuntu 24.04" },
    Image { name: "canonical/ubuntuserver/18.04-lts", agent: "batch.node.ubuntu 18.04" },
    Image { name: "debian/debian-11/11", agent: "batch.node.debian 11" },
    Image { name: "debian/debian-12/12", agent: "batch.node.debian 12" },
    Image { name: "microsoft-dsvm/ubuntu-hpc/2204", agent: "batch.node.ubuntu 22.04" },
    Image { name: "piecework/host/linux", agent: "piecework.node.linux" },
];

impl Image {
    fn shown(&self) -> Vec<u8> {
        let mut parts = self.name.split('/');
        let mut part = || parts.next().unwrap_or_default();
        json!({
            "nodeAgentSKUId": self.agent,
            "imageReference": {"publisher": part(), "offer": part(), "sku": part(), "version": "latest"},
            "osType": "linux",
            "verificationType": "verified",
        })
        .to_string()
        .into_bytes()
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

/// A page of the images.
pub async fn list(_door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let paging = Paging::read(call, ROWS_MAX)?;
    let filter = call.query.text("$filter")?.map(|text| odata::parse(text).map(|filter| (text, filter))).transpose()?;
    let mut rows = Vec::new();
    for image in IMAGES {
        let is_wanted = match &filter {
            None => true,
            Some((text, filter)) => holds(filter, &|path| image.value_of(path)).map_err(|reason| odata::refused(text, &reason))?,
        };
        if is_wanted && paging.after.as_deref().is_none_or(|after| image.name > after) && rows.len() <= paging.rows_max {
            rows.push(image);
        }
    }
    Ok(paging.answer(call, "supportedimages", &rows, |image| image.name, |_, image| image.shown()))
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
