//! Checks a pool's network, mounts and users beyond the schema, and keeps what needs no action.
//!
//! A wrong value is refused before the refusal of an unsupported feature, so a body that is valid for Azure Batch is
//! refused only for what Piecework does not support.

use std::collections::HashSet;

use model::refusal::Refusal;

use crate::{body::Object, shared_body::path_fault};

/// Rules of all inbound endpoints of one network.
const RULES_MAX: usize = 25;
/// Ports that Azure Batch reserves.
const BACKEND_RESERVED: [i64; 4] = [22, 3389, 29_876, 29_877];
const FRONTEND_RESERVED: std::ops::RangeInclusive<i64> = 50_000..=55_000;
/// Smallest range of frontend ports.
const FRONTEND_LEAST: i64 = 40;

/// Checks `networkConfiguration`.
pub fn network(body: &Object<'_>) -> Result<(), Refusal> {
    let Some(network) = body.object("networkConfiguration") else { return Ok(()) };
    if let Some(endpoints) = network.object("endpointConfiguration") {
        inbound(&endpoints)?;
    }
    if network.word("dynamicVNetAssignmentScope") == Some("job") {
        return Err(network.not_served("dynamicVNetAssignmentScope", "Nodes use the network of the machine they run on."));
    }
    network.refuse("endpointConfiguration")
}

fn is_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(|byte| word(*byte))
        && bytes.iter().all(|byte| word(*byte) || b".-".contains(byte))
}

fn inbound(endpoints: &Object<'_>) -> Result<(), Refusal> {
    let (mut names, mut ranges, mut rule_count) = (HashSet::new(), Vec::new(), 0);
    endpoints.list("inboundNATPools").each(|pool| {
        let name = pool.required_text("name");
        if !is_name(&name) {
            return Err(pool.invalid("name", "It starts with a letter or digit, ends with one or '_', and may hold '.', '-' and '_'."));
        }
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(pool.invalid("name", "Another inbound pool has this name."));
        }
        if BACKEND_RESERVED.contains(&pool.required_integer("backendPort")) {
            return Err(pool.invalid("backendPort", "Ports 22, 3389, 29876 and 29877 are reserved."));
        }
        let (first, last): (i64, i64) = (pool.required_integer("frontendPortRangeStart"), pool.required_integer("frontendPortRangeEnd"));
        if last - first + 1 < FRONTEND_LEAST {
            return Err(pool.invalid("frontendPortRangeEnd", format!("The range needs at least {FRONTEND_LEAST} ports.")));
        }
        if first <= *FRONTEND_RESERVED.end() && last >= *FRONTEND_RESERVED.start() {
            return Err(pool.invalid("frontendPortRangeStart", "Ports 50000 to 55000 are reserved."));
        }
        let protocol = pool.word("protocol");
        if ranges.iter().any(|(other, from, to)| *other == protocol && first <= *to && last >= *from) {
            return Err(pool.invalid("frontendPortRangeStart", "The range overlaps that of another inbound pool."));
        }
        ranges.push((protocol, first, last));
        rule_count += rules(&pool)?;
        if rule_count > RULES_MAX {
            return Err(pool.invalid("networkSecurityGroupRules", format!("All inbound pools may have {RULES_MAX} rules together.")));
        }
        Ok(())
    })?;
    Ok(())
}

fn rules(pool: &Object<'_>) -> Result<usize, Refusal> {
    let mut priorities = HashSet::new();
    let rules = pool.list("networkSecurityGroupRules").each(|rule| {
        if !priorities.insert(rule.required_integer::<i64>("priority")) {
            return Err(rule.invalid("priority", "Another rule has this priority."));
        }
        for range in rule.list("sourcePortRanges").texts::<String>() {
            let (first, last) = range.split_once('-').unwrap_or((&range, &range));
            let is_port = |text: &str| text.parse::<u16>().is_ok();
            if range != "*" && !(is_port(first) && is_port(last)) {
                return Err(rule.invalid("sourcePortRanges", "A port, a range such as 22-80, or * is expected."));
            }
        }
        Ok(())
    })?;
    Ok(rules.len())
}

/// Checks `mountConfiguration`; mounts are not supported.
pub fn mounts(body: &Object<'_>) -> Result<(), Refusal> {
    const BLOBS: &str = "azureBlobFileSystemConfiguration";
    let mut paths = HashSet::new();
    body.list("mountConfiguration").each(|mount| {
        let Some(kind) = mount.first(|_| true) else {
            return Err(mount.invalid(BLOBS, "Exactly one of the four kinds of file system is expected."));
        };
        let system = mount.required_object(kind);
        let path = system.required_text("relativeMountPath");
        if let Some(reason) = path_fault(&path) {
            return Err(system.invalid("relativeMountPath", reason));
        }
        if !paths.insert(path.trim_matches('/').to_owned()) {
            return Err(system.invalid("relativeMountPath", "Another mount has this path."));
        }
        let credentials = ["accountKey", "sasKey", "identityReference"];
        if kind == BLOBS && credentials.iter().all(|name| system.value(name).is_none()) {
            return Err(system.invalid("accountKey", "Exactly one of accountKey, sasKey and identityReference is expected."));
        }
        Ok(())
    })?;
    body.refuse("mountConfiguration")
}

/// Checks `userAccounts`; named users are not supported.
pub fn users(body: &Object<'_>) -> Result<(), Refusal> {
    let mut names = HashSet::new();
    body.list("userAccounts").each(|user| {
        if !names.insert(user.required_text("name").to_lowercase()) {
            return Err(user.invalid("name", "Another user has this name."));
        }
        match user.object("linuxUserConfiguration") {
            Some(linux) if linux.value("uid").is_some() != linux.value("gid").is_some() => {
                Err(linux.invalid("uid", "uid and gid come together."))
            }
            _ => Ok(()),
        }
    })?;
    body.refuse("userAccounts")
}

#[cfg(test)]
mod tests {
    use model::refusal::Code::{self, *};
    use serde_json::{Value, json};

    use super::*;
    use crate::body::tried;

    fn check(body: Value) -> Option<Code> {
        let all = |body: Object<'_>| network(&body).and_then(|()| mounts(&body)).and_then(|()| users(&body));
        tried("PoolPatchParameter", &body, all).err().map(|refusal| refusal.code)
    }

    #[test]
    fn inbound_pools_are_checked_before_they_are_refused() {
        let pool = |change: Value| {
            let mut pool = json!({
                "name": "ssh_1", "protocol": "TCP", "backendPort": 8080, "frontendPortRangeStart": 1000, "frontendPortRangeEnd": 1039,
                "networkSecurityGroupRules": [{"priority": 150, "access": "allow", "sourceAddressPrefix": "*", "sourcePortRanges": ["*", "1-9"]}],
            });
            pool.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            pool
        };
        let one = |change: Value| check(json!({"networkConfiguration": {"endpointConfiguration": {"inboundNATPools": [pool(change)]}}}));
        assert_eq!(one(json!({})), Some(UnsupportedProperty));
        for change in [
            json!({"name": "-x"}),
            json!({"name": "x-"}),
            json!({"name": "a b"}),
            json!({"name": "x".repeat(78)}),
            json!({"protocol": "icmp"}),
            json!({"backendPort": 22}),
            json!({"backendPort": 65_536}),
            json!({"frontendPortRangeEnd": 1038}),
            json!({"frontendPortRangeStart": 49_980, "frontendPortRangeEnd": 50_100}),
            json!({"frontendPortRangeStart": 0}),
            json!({"networkSecurityGroupRules": [{"priority": 149, "access": "allow", "sourceAddressPrefix": "*"}]}),
            json!({"networkSecurityGroupRules": [{"priority": 150, "access": "maybe", "sourceAddressPrefix": "*"}]}),
            json!({"networkSecurityGroupRules": [{"priority": 150, "access": "deny", "sourceAddressPrefix": "*", "sourcePortRanges": ["x"]}]}),
            json!({"networkSecurityGroupRules": [
                {"priority": 150, "access": "deny", "sourceAddressPrefix": "*"}, {"priority": 150, "access": "deny", "sourceAddressPrefix": "*"}]}),
        ] {
            assert_eq!(one(change.clone()), Some(InvalidPropertyValue), "{change}");
        }
        let two = |other: Value| {
            check(json!({"networkConfiguration": {"endpointConfiguration": {"inboundNATPools": [pool(json!({})), pool(other)]}}}))
        };
        assert_eq!(two(json!({"name": "other"})), Some(InvalidPropertyValue), "ranges overlap");
        assert_eq!(two(json!({"frontendPortRangeStart": 2000, "frontendPortRangeEnd": 2100})), Some(InvalidPropertyValue), "same name");
        assert_eq!(two(json!({"name": "other", "frontendPortRangeStart": 2000, "frontendPortRangeEnd": 2100})), Some(UnsupportedProperty));
    }

    #[test]
    fn networks_that_ask_for_nothing_are_kept() {
        for (network, code) in [
            (json!({}), None),
            (json!({"dynamicVNetAssignmentScope": "none", "enableAcceleratedNetworking": true}), None),
            (json!({"publicIPAddressConfiguration": {"provision": "NoPublicIPAddresses"}}), None),
            (json!({"endpointConfiguration": {}}), None),
            (json!({"subnetId": "/subnets/x"}), Some(UnsupportedProperty)),
            (json!({"dynamicVNetAssignmentScope": "job"}), Some(UnsupportedProperty)),
            (json!({"dynamicVNetAssignmentScope": "pool"}), Some(InvalidPropertyValue)),
            (json!({"publicIPAddressConfiguration": {"provision": "usermanaged", "ipAddressIds": ["x"]}}), Some(UnsupportedProperty)),
            (json!({"publicIPAddressConfiguration": {"provision": "x"}}), Some(InvalidPropertyValue)),
        ] {
            assert_eq!(check(json!({"networkConfiguration": network.clone()})), code, "{network}");
        }
    }

    #[test]
    fn mounts_have_exactly_one_kind_and_a_path_below_the_mounts() {
        let nfs = |path: &str| json!({"nfsMountConfiguration": {"source": "h:/x", "relativeMountPath": path}});
        let blob = |more: Value| {
            let mut blob = json!({"accountName": "a", "containerName": "c", "relativeMountPath": "b"});
            blob.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"azureBlobFileSystemConfiguration": blob})
        };
        let both = json!({"nfsMountConfiguration": {"source": "h:/x", "relativeMountPath": "n"}, "cifsMountConfiguration": {}});
        for (mounts, code) in [
            (json!([]), None),
            (json!([nfs("data")]), Some(UnsupportedProperty)),
            (json!([nfs("data"), nfs("data/")]), Some(InvalidPropertyValue)),
            (json!([nfs("../x")]), Some(InvalidPropertyValue)),
            (json!([nfs("/x")]), Some(InvalidPropertyValue)),
            (json!([{}]), Some(InvalidPropertyValue)),
            (json!([both]), Some(InvalidPropertyValue)),
            (json!([{"nfsMountConfiguration": {"relativeMountPath": "n"}}]), Some(MissingRequiredProperty)),
            (
                json!([{"cifsMountConfiguration": {"username": "u", "source": "s", "relativeMountPath": "n"}}]),
                Some(MissingRequiredProperty),
            ),
            (json!([blob(json!({}))]), Some(InvalidPropertyValue)),
            (json!([blob(json!({"accountKey": "k", "sasKey": "s"}))]), Some(InvalidPropertyValue)),
            (json!([blob(json!({"sasKey": "s"}))]), Some(UnsupportedProperty)),
            (Value::Array((0..11).map(|n| nfs(&format!("m{n}"))).collect()), Some(InvalidPropertyValue)),
        ] {
            assert_eq!(check(json!({"mountConfiguration": mounts.clone()})), code, "{mounts}");
        }
    }

    #[test]
    fn users_have_names_passwords_and_both_numbers_or_none() {
        let user = |more: Value| {
            let mut user = json!({"name": "u", "password": "p"});
            user.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            user
        };
        for (users, code) in [
            (json!([]), None),
            (json!([user(json!({"elevationLevel": "Admin"}))]), Some(UnsupportedProperty)),
            (json!([user(json!({})), user(json!({"name": "U"}))]), Some(InvalidPropertyValue)),
            (json!([user(json!({"name": "x".repeat(21)}))]), Some(InvalidPropertyValue)),
            (json!([{"name": "u"}]), Some(MissingRequiredProperty)),
            (json!([user(json!({"linuxUserConfiguration": {"uid": 7}}))]), Some(InvalidPropertyValue)),
            (json!([user(json!({"linuxUserConfiguration": {"uid": 7, "gid": 7}}))]), Some(UnsupportedProperty)),
            (json!([user(json!({"windowsUserConfiguration": {"loginMode": "x"}}))]), Some(InvalidPropertyValue)),
        ] {
            assert_eq!(check(json!({"userAccounts": users.clone()})), code, "{users}");
        }
    }
}
