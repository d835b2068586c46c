//! A package that is deployed on this node, and the variables that name its folder.

use std::path::{Path, PathBuf};

use contract::ids::{ApplicationId, PackageVersion};

/// A package that is deployed on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    pub(super) application: ApplicationId,
    pub(super) version: Option<PackageVersion>,
    pub(super) is_default: bool,
    pub(super) folder: PathBuf,
}

impl Deployed {
    /// The folder with the unpacked package.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The variables that name the folder, in every spelling that scripts are known to use.
    pub fn variables(&self) -> Vec<(String, &Path)> {
        let plain = |text: &str| text.replace(['-', '.', '#'], "_");
        let name = plain(self.application.as_str());
        let versioned = self.version.as_ref().map(|version| format!("{name}_{}", plain(version.as_str())));
        let mut spellings: Vec<String> = versioned
            .into_iter()
            .chain(self.is_default.then_some(name))
            .flat_map(|name| [name.to_ascii_uppercase(), name.to_ascii_lowercase(), name])
            .map(|name| format!("AZ_BATCH_APP_PACKAGE_{name}"))
            .collect();
        spellings.sort();
        spellings.dedup();
        spellings.into_iter().map(|name| (name, self.folder.as_path())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_in_every_spelling_and_without_its_version_when_it_is_the_default() {
        let mut deployed = Deployed {
            application: "Agent-linux".parse().unwrap(),
            version: Some("1.1.46-x".parse().unwrap()),
            is_default: false,
            folder: "/r/applications/a".into(),
        };
        let names = |deployed: &Deployed| deployed.variables().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(
            names(&deployed),
            [
                "AZ_BATCH_APP_PACKAGE_AGENT_LINUX_1_1_46_X",
                "AZ_BATCH_APP_PACKAGE_Agent_linux_1_1_46_x",
                "AZ_BATCH_APP_PACKAGE_agent_linux_1_1_46_x"
            ]
        );
        deployed.is_default = true;
        assert!(names(&deployed).contains(&"AZ_BATCH_APP_PACKAGE_agent_linux".to_owned()));
        assert_eq!(names(&deployed).len(), 6);
    }
}
