//! Reads a pool's `virtualMachineConfiguration`: image, disks and security.
//!
//! Nodes are what their provider makes them. So images and disks are checked, kept and shown without effect; properties
//! that promise isolation, encryption or software are refused.

use model::refusal::Refusal;
use serde_json::{Map, Value, json};

use crate::body::Object;

/// Parts of names of Azure's Windows images, agents and licences that no others have.
const WINDOWS: &[&str] = &["windows", "-win-", "win2", "-ws20"];
const NO_WINDOWS: &str = "Nodes run Linux; a pool of Windows nodes would wait for ever.";
const LINUX: &str = "GET /supportedimages lists images to name; piecework host linux is one.";

/// Name of the property.
pub const MACHINE: &str = "virtualMachineConfiguration";

/// Reads the property if it is given.
pub fn read(body: &Object<'_>) -> Result<Option<Value>, Refusal> {
    let Some(machine) = body.object(MACHINE) else { return Ok(None) };
    let mut shown = Map::new();
    shown.insert("imageReference".to_owned(), image(&machine)?);
    windows(&machine)?;
    data_disks(&machine)?;
    placement(&machine)?;
    for name in [
        "nodeAgentSKUId",
        "licenseType",
        "osDisk",
        "dataDisks",
        "nodePlacementConfiguration",
        "securityProfile",
        "serviceArtifactReference",
    ] {
        shown.insert(name.to_owned(), json!(machine.value(name)));
    }
    Ok(Some(Value::Object(shown)))
}

fn image(machine: &Object<'_>) -> Result<Value, Refusal> {
    let image = machine.required_object("imageReference");
    let ids = ["virtualMachineImageId", "sharedGalleryImageId", "communityGalleryImageId"];
    if let Some((name, id)) = ids.iter().find_map(|name| Some((name, image.text(name)?))) {
        return Ok(json!({*name: id}));
    }
    let parts = ["publisher", "offer", "sku"];
    if let Some(name) = parts.into_iter().find(|name| image.text(name).is_none_or(str::is_empty)) {
        return Err(image.missing(name));
    }
    let [publisher, offer, sku] = parts.map(|name| image.text(name));
    Ok(json!({"publisher": publisher, "offer": offer, "sku": sku, "version": image.text("version").unwrap_or("latest")}))
}

/// Refuses Windows images, whose nodes would never appear.
fn windows(machine: &Object<'_>) -> Result<(), Refusal> {
    let is_of = |text: Option<&str>| text.is_some_and(|text| WINDOWS.iter().any(|word| text.to_ascii_lowercase().contains(word)));
    let image = machine.required_object("imageReference");
    for (object, names) in [(machine, &["nodeAgentSKUId", "licenseType"][..]), (&image, &["publisher", "offer", "sku"])] {
        if let Some(name) = names.iter().find(|name| is_of(object.text(name))) {
            return Err(object.invalid(name, NO_WINDOWS).hint(LINUX));
        }
    }
    Ok(())
}

fn data_disks(machine: &Object<'_>) -> Result<(), Refusal> {
    let mut numbers = Vec::new();
    machine.list("dataDisks").each(|disk| {
        let number: i64 = disk.required_integer("lun");
        if numbers.contains(&number) {
            return Err(disk.invalid("lun", "Another disk has this number."));
        }
        numbers.push(number);
        Ok(())
    })?;
    Ok(())
}

fn placement(machine: &Object<'_>) -> Result<(), Refusal> {
    match machine.object("nodePlacementConfiguration") {
        Some(placement) if placement.word("policy") == Some("zonal") => {
            Err(placement.not_served("policy", "Nodes stand where their provider makes them; leave the policy out."))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use model::refusal::Code;

    use super::*;
    use crate::body::tried;

    fn with(name: &str, value: Value) -> Result<Value, Code> {
        let image = json!({"publisher": "a", "offer": "b", "sku": "c"});
        let mut body = json!({"virtualMachineConfiguration": {"imageReference": image, "nodeAgentSKUId": "d"}});
        body["virtualMachineConfiguration"][name] = value;
        tried("PoolPatchParameter", &body, |body| read(&body)).map(Option::unwrap).map_err(|refusal| refusal.code)
    }

    #[test]
    fn an_image_is_named_in_exactly_one_way() {
        use Code::*;
        assert_eq!(with("licenseType", json!("x")).unwrap()["imageReference"]["version"], "latest");
        for (image, code) in [
            (json!({"virtualMachineImageId": "/subscriptions/x"}), None),
            (json!({"sharedGalleryImageId": "/g"}), None),
            (json!({"publisher": "a", "offer": "b"}), Some(MissingRequiredProperty)),
            (json!({"publisher": "", "offer": "b", "sku": "c"}), Some(MissingRequiredProperty)),
            (json!({"virtualMachineImageId": "x", "sku": "c"}), Some(InvalidPropertyValue)),
            (json!({"virtualMachineImageId": "x", "version": "latest"}), Some(InvalidPropertyValue)),
            (json!({"virtualMachineImageId": "x", "sharedGalleryImageId": "y"}), Some(InvalidPropertyValue)),
            (json!({"virtualMachineImageId": ""}), Some(InvalidPropertyValue)),
            (json!({}), Some(MissingRequiredProperty)),
            (Value::Null, Some(MissingRequiredProperty)),
        ] {
            assert_eq!(with("imageReference", image.clone()).err(), code, "{image}");
        }
    }

    #[test]
    fn harmless_wishes_are_kept_and_promises_that_nobody_keeps_are_refused() {
        use Code::*;
        for (name, value, code) in [
            ("osDisk", json!({"caching": "ReadOnly", "diskSizeGB": "64", "managedDisk": {"storageAccountType": "premium_lrs"}}), None),
            ("osDisk", json!({"ephemeralOSDiskSettings": {"placement": "CacheDisk"}}), None),
            ("osDisk", json!({"caching": "always"}), Some(InvalidPropertyValue)),
            ("osDisk", json!({"diskSizeGB": 0}), Some(InvalidPropertyValue)),
            ("dataDisks", json!([{"lun": 0, "diskSizeGB": 10}, {"lun": 1, "diskSizeGB": 10}]), None),
            ("dataDisks", json!([{"lun": 0, "diskSizeGB": 10}, {"lun": 0, "diskSizeGB": 10}]), Some(InvalidPropertyValue)),
            ("dataDisks", json!([{"lun": 64, "diskSizeGB": 10}]), Some(InvalidPropertyValue)),
            ("dataDisks", json!([{"lun": 0}]), Some(MissingRequiredProperty)),
            ("nodePlacementConfiguration", json!({"policy": "Regional"}), None),
            ("nodePlacementConfiguration", json!({"policy": "zonal"}), Some(UnsupportedProperty)),
            ("securityProfile", json!({"uefiSettings": {"secureBootEnabled": false, "vTpmEnabled": "false"}}), None),
            ("securityProfile", json!({"securityType": "trustedLaunch"}), Some(UnsupportedProperty)),
            ("securityProfile", json!({"securityType": "ConfidentialVM"}), Some(UnsupportedProperty)),
            ("securityProfile", json!({"uefiSettings": {"secureBootEnabled": true}}), Some(UnsupportedProperty)),
            ("securityProfile", json!({"uefiSettings": {"vTpmEnabled": "true"}}), Some(UnsupportedProperty)),
            ("securityProfile", json!({"encryptionAtHost": true}), Some(UnsupportedProperty)),
            ("containerConfiguration", json!({"type": "dockerCompatible"}), Some(UnsupportedProperty)),
            ("extensions", json!([{"name": "x"}]), Some(UnsupportedProperty)),
            ("extensions", json!([]), None),
            ("diskEncryptionConfiguration", json!({"targets": ["osdisk"]}), Some(UnsupportedProperty)),
            ("windowsConfiguration", json!({"enableAutomaticUpdates": "maybe"}), Some(InvalidPropertyValue)),
            ("windowsConfiguration", json!({"enableAutomaticUpdates": false}), Some(UnsupportedProperty)),
            ("windowsConfiguration", json!({}), None),
            ("licenseType", json!("Windows_Server"), Some(InvalidPropertyValue)),
            ("nodeAgentSKUId", json!("batch.node.windows amd64"), Some(InvalidPropertyValue)),
            (
                "imageReference",
                json!({"publisher": "MicrosoftWindowsServer", "offer": "WindowsServer", "sku": "2022-datacenter"}),
                Some(InvalidPropertyValue),
            ),
            (
                "imageReference",
                json!({"publisher": "microsoft-dsvm", "offer": "dsvm-win-2022", "sku": "winserver-2022"}),
                Some(InvalidPropertyValue),
            ),
            (
                "imageReference",
                json!({"publisher": "MicrosoftSQLServer", "offer": "sql2022-ws2022", "sku": "standard"}),
                Some(InvalidPropertyValue),
            ),
            ("imageReference", json!({"publisher": "microsoft-dsvm", "offer": "ubuntu-hpc", "sku": "2404"}), None),
            ("serviceArtifactReference", json!({}), Some(MissingRequiredProperty)),
            ("nodeAgentSKUId", json!(""), Some(InvalidPropertyValue)),
        ] {
            assert_eq!(with(name, value.clone()).err(), code, "{name} {value}");
        }
    }
}
