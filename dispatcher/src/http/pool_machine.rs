//! Reads a pool's `virtualMachineConfiguration`: which image its nodes have, and what else is asked of the machine.
//!
//! Nodes here are what their provider makes them, so disks and images are checked, kept and shown without effect;
//! what would promise isolation, encryption or software that nobody sets up is refused.

use serde_json::{Map, Value, json};

use crate::{
    http::validate::Object,
    refusal::{Code, Refusal},
};

/// Characters of an image's part or id.
const IMAGE_PART_MAX: usize = 1_024;
/// Disks of one machine, and the largest disk in GiB.
const DISKS_MAX: usize = 64;
const DISK_GIB_MAX: i64 = 32_767;

const CACHING: &[&str] = &["none", "readonly", "readwrite"];
const STORAGE: &[&str] = &["standard_lrs", "premium_lrs", "standardssd_lrs"];

/// Reads what must be there when a pool is added.
pub fn required(body: &Object<'_>) -> Result<Value, Refusal> {
    let Some(machine) = read(body)? else {
        body.unsupported(&["cloudServiceConfiguration"], "Cloud services are retired; give a virtualMachineConfiguration.")?;
        return Err(body.missing("virtualMachineConfiguration"));
    };
    if body.value("cloudServiceConfiguration").is_some() {
        let reason = "Exactly one of virtualMachineConfiguration and cloudServiceConfiguration is expected.";
        return Err(body.invalid("cloudServiceConfiguration", reason));
    }
    Ok(machine)
}

/// Reads it if it is there.
pub fn read(body: &Object<'_>) -> Result<Option<Value>, Refusal> {
    let Some(machine) = body.object("virtualMachineConfiguration")? else { return Ok(None) };
    machine.unsupported(&["containerConfiguration"], "Tasks run as processes of the node; containers are not served yet.")?;
    machine.unsupported(&["extensions", "diskEncryptionConfiguration"], "Set the machine itself up that way.")?;
    let mut shown = Map::new();
    shown.insert("imageReference".to_owned(), image(&machine)?);
    shown.insert("nodeAgentSKUId".to_owned(), json!(machine.required_text("nodeAgentSKUId", 256)?));
    shown.insert("licenseType".to_owned(), json!(machine.text("licenseType", 256)?));
    system_disk(&machine)?;
    data_disks(&machine)?;
    placement(&machine)?;
    security(&machine)?;
    if let Some(windows) = machine.object("windowsConfiguration")? {
        windows.flag("enableAutomaticUpdates")?;
    }
    if let Some(artifact) = machine.object("serviceArtifactReference")? {
        artifact.required_text("id", IMAGE_PART_MAX)?;
    }
    for name in ["osDisk", "dataDisks", "nodePlacementConfiguration", "securityProfile", "windowsConfiguration", "serviceArtifactReference"]
    {
        shown.insert(name.to_owned(), json!(machine.value(name)));
    }
    Ok(Some(Value::Object(shown)))
}

fn image(machine: &Object<'_>) -> Result<Value, Refusal> {
    let image = machine.required_object("imageReference")?;
    let part = |name: &str| image.text(name, IMAGE_PART_MAX);
    let parts = [("publisher", part("publisher")?), ("offer", part("offer")?), ("sku", part("sku")?)];
    let ids = ["virtualMachineImageId", "sharedGalleryImageId", "communityGalleryImageId"];
    let mut given = Vec::new();
    for name in ids {
        if let Some(id) = part(name)? {
            if id.is_empty() {
                return Err(image.invalid(name, "It may not be empty."));
            }
            given.push((name, id));
        }
    }
    let version = part("version")?;
    match given[..] {
        [] => {
            for (name, value) in parts {
                if value.is_none_or(str::is_empty) {
                    return Err(image.missing(name));
                }
            }
            let [publisher, offer, sku] = parts.map(|(_, value)| value);
            Ok(json!({"publisher": publisher, "offer": offer, "sku": sku, "version": version.unwrap_or("latest")}))
        }
        [(name, id)] => match parts.into_iter().chain([("version", version)]).find(|(_, value)| value.is_some()) {
            Some((other, _)) => Err(image.invalid(other, format!("It and {name} exclude each other."))),
            None => Ok(json!({name: id})),
        },
        [_, (second, _), ..] => Err(image.invalid(second, "One image id is expected.")),
    }
}

fn system_disk(machine: &Object<'_>) -> Result<(), Refusal> {
    let Some(disk) = machine.object("osDisk")? else { return Ok(()) };
    disk.choice("caching", CACHING)?;
    disk.integer("diskSizeGB", 1..=DISK_GIB_MAX)?;
    disk.flag("writeAcceleratorEnabled")?;
    if let Some(settings) = disk.object("ephemeralOSDiskSettings")? {
        settings.choice("placement", &["cachedisk"])?;
    }
    managed_disk(&disk)
}

fn managed_disk(disk: &Object<'_>) -> Result<(), Refusal> {
    let Some(managed) = disk.object("managedDisk")? else { return Ok(()) };
    managed.choice("storageAccountType", STORAGE)?;
    managed.unsupported(&["diskEncryptionSet", "securityProfile"], "Encrypt the machine's disks themselves.")
}

fn data_disks(machine: &Object<'_>) -> Result<(), Refusal> {
    let mut numbers = Vec::new();
    machine.list("dataDisks", DISKS_MAX)?.each(|disk| {
        let number = disk.integer("lun", 0..=63)?.ok_or_else(|| disk.missing("lun"))?;
        if numbers.contains(&number) {
            return Err(disk.invalid("lun", "Another disk has this number."));
        }
        numbers.push(number);
        disk.integer("diskSizeGB", 1..=DISK_GIB_MAX)?.ok_or_else(|| disk.missing("diskSizeGB"))?;
        disk.choice("caching", CACHING)?;
        disk.choice("storageAccountType", STORAGE)?;
        managed_disk(&disk)
    })?;
    Ok(())
}

fn placement(machine: &Object<'_>) -> Result<(), Refusal> {
    let Some(placement) = machine.object("nodePlacementConfiguration")? else { return Ok(()) };
    match placement.choice("policy", &["regional", "zonal"])? {
        Some("zonal") => {
            Err(Refusal::new(Code::UnsupportedProperty, "One of the properties specified in the request body is not supported.")
                .with("PropertyName", "virtualMachineConfiguration.nodePlacementConfiguration.policy")
                .hint("Nodes stand where their provider makes them; leave the policy out."))
        }
        _ => Ok(()),
    }
}

fn security(machine: &Object<'_>) -> Result<(), Refusal> {
    let Some(profile) = machine.object("securityProfile")? else { return Ok(()) };
    profile.choice("securityType", &["trustedLaunch", "confidentialVM"])?;
    profile.unsupported(&["encryptionAtHost"], "Encrypt the machine itself.")?;
    if let Some(settings) = profile.object("uefiSettings")? {
        settings.flag("secureBootEnabled")?;
        settings.flag("vTpmEnabled")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: Value) -> Result<Value, Code> {
        let image = json!({"publisher": "a", "offer": "b", "sku": "c"});
        let mut body = json!({"virtualMachineConfiguration": {"imageReference": image, "nodeAgentSKUId": "d"}});
        body["virtualMachineConfiguration"][name] = value;
        required(&Object::root(body.as_object().unwrap())).map_err(|refusal| refusal.code)
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
            ("securityProfile", json!({"securityType": "trustedLaunch", "uefiSettings": {"vTpmEnabled": true}}), None),
            ("securityProfile", json!({"encryptionAtHost": true}), Some(UnsupportedProperty)),
            ("containerConfiguration", json!({"type": "dockerCompatible"}), Some(UnsupportedProperty)),
            ("extensions", json!([{"name": "x"}]), Some(UnsupportedProperty)),
            ("extensions", json!([]), None),
            ("diskEncryptionConfiguration", json!({"targets": ["osdisk"]}), Some(UnsupportedProperty)),
            ("windowsConfiguration", json!({"enableAutomaticUpdates": "maybe"}), Some(InvalidPropertyValue)),
            ("serviceArtifactReference", json!({}), Some(MissingRequiredProperty)),
            ("nodeAgentSKUId", json!(""), Some(InvalidPropertyValue)),
        ] {
            assert_eq!(with(name, value.clone()).err(), code, "{name} {value}");
        }
    }
}
