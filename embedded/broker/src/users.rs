//! Users: their table, kept in `users.json` of the data folder with hashed passwords, and logins against it.
//!
//! The file has a format version; a start refuses a newer one, and unknown fields are dropped with the next change.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    rc::Rc,
};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    error::Error,
    ids::Name,
    journal::create_private,
    permissions::{Permissions, Right, Rights},
    user_error::UserError,
};

/// Users at most, without the one of the settings.
const USERS_MAX: usize = 4_096;
/// Longest name, in bytes: the property `user_id` must hold it.
const NAME_BYTES_MAX: usize = 255;
/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 255;
/// Tags of one user.
const TAGS_MAX: usize = 32;
/// Longest tag, in bytes.
const TAG_BYTES_MAX: usize = 128;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
const FILE: &str = "users.json";
const FORMAT: u32 = 1;

/// A user as it is shown: without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, which is also the `user_id` of its messages.
    pub name: String,
    /// Words for whoever administers users; the server makes nothing of them.
    pub tags: Vec<String>,
    pub permissions: Permissions,
}

/// A user as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub name: String,
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
    #[serde(default)]
    pub tags: Vec<String>,
    pub permissions: Permissions,
}

impl Record {
    /// Checks a new user and hashes the password.
    pub fn new(user: User, password: &str) -> Result<Record, UserError> {
        let User { name, tags, permissions } = user;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(UserError::Name { most: NAME_BYTES_MAX });
        }
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(UserError::Password { most: PASSWORD_BYTES_MAX });
        }
        let is_tag = |tag: &String| (1..=TAG_BYTES_MAX).contains(&tag.len()) && !tag.chars().any(|c| c.is_control() || c == ',');
        if tags.len() > TAGS_MAX || !tags.iter().all(is_tag) {
            return Err(UserError::Tags { most: TAGS_MAX, longest: TAG_BYTES_MAX });
        }
        Rights::compile(&name, &permissions)?;
        let salt = rand::rng().random();
        Ok(Record { hash: digest(&salt, password.as_bytes()), salt, name, tags, permissions })
    }

    pub fn shown(&self) -> User {
        User { name: self.name.clone(), tags: self.tags.clone(), permissions: self.permissions.clone() }
    }
}

fn digest(salt: &[u8; SALT_BYTES], password: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::new().chain_update(salt).chain_update(password).finalize().into()
}

/// The user of a connection.
#[derive(Debug)]
pub(crate) struct Account {
    pub name: Name,
    /// Absent for the user of the settings, who may do everything.
    rights: Option<Rights>,
}

impl Account {
    /// Whether a queue or an exchange may be used.
    pub fn may(&self, right: Right, name: &str) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.allow(right, name))
    }

    /// Whether a key may be used on an exchange.
    pub fn may_key(&self, right: Right, exchange: &str, key: &str) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.allow_key(right, exchange, key))
    }
}

struct Entry {
    record: Record,
    account: Rc<Account>,
}

impl Entry {
    fn new(record: Record) -> Result<Entry, UserError> {
        let rights = Some(Rights::compile(&record.name, &record.permissions)?);
        Ok(Entry { account: Rc::new(Account { name: record.name.as_str().into(), rights }), record })
    }
}

/// A change of the table.
#[derive(Debug)]
pub(crate) enum Change {
    Put(Record),
    Permit { name: String, permissions: Permissions },
    Remove { name: String },
}

impl Change {
    pub fn name(&self) -> &str {
        match self {
            Change::Put(record) => &record.name,
            Change::Permit { name, .. } | Change::Remove { name } => name,
        }
    }
}

/// All users of a server.
pub(crate) struct Table {
    own: Rc<Account>,
    own_password: String,
    entries: BTreeMap<String, Entry>,
}

impl Table {
    /// Reads the users of a data folder; the user of the settings is not among them.
    pub fn open(data: &Path, own: &str, own_password: &str) -> Result<Table, Error> {
        let path = data.join(FILE);
        let own = Account { name: own.into(), rights: None };
        let mut table = Table { own: Rc::new(own), own_password: own_password.to_owned(), entries: BTreeMap::new() };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(table),
            Err(error) => return Err(Error::data(path)(error)),
        };
        let unreadable = |reason: String| Error::Users { path: path.clone(), reason };
        let kept: Kept = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        if kept.v != FORMAT {
            return Err(unreadable(format!("it has format {}, this version reads {FORMAT}", kept.v)));
        }
        for record in kept.users {
            if *record.name == *table.own.name {
                tracing::warn!(
                    user = record.name,
                    "a stored user of the embedded broker has the name of the user in its settings; the stored one is ignored"
                );
                continue;
            }
            let name = record.name.clone();
            let entry = Entry::new(record).map_err(|error| unreadable(format!("user {name}: {error}")))?;
            table.entries.insert(name, entry);
        }
        Ok(table)
    }

    /// The user whom name and password belong to. An unknown name takes as long as a wrong password.
    pub fn login(&self, name: &[u8], password: &[u8]) -> Option<Rc<Account>> {
        let is_own = name.ct_eq(self.own.name.as_bytes()) & password.ct_eq(self.own_password.as_bytes());
        let entry = std::str::from_utf8(name).ok().and_then(|name| self.entries.get(name));
        let (salt, hash) = entry.map_or(([0; SALT_BYTES], [0; HASH_BYTES]), |entry| (entry.record.salt, entry.record.hash));
        let is_entry = digest(&salt, password).ct_eq(&hash);
        match entry {
            _ if bool::from(is_own) => Some(self.own.clone()),
            Some(entry) if bool::from(is_entry) => Some(entry.account.clone()),
            _ => None,
        }
    }

    /// All users by name, without that of the settings.
    pub fn shown(&self) -> Vec<User> {
        self.entries.values().map(|entry| entry.record.shown()).collect()
    }

    /// The present account of a user.
    pub fn account(&self, name: &str) -> Option<Rc<Account>> {
        self.entries.get(name).map(|entry| entry.account.clone())
    }

    /// The records after a change, which is not made yet.
    pub fn plan(&self, change: &Change) -> Result<Vec<Record>, UserError> {
        let name = change.name();
        if *name == *self.own.name {
            return Err(UserError::Reserved { name: name.to_owned() });
        }
        let is_known = self.entries.contains_key(name);
        let is_new = matches!(change, Change::Put(_));
        if !is_new && !is_known {
            return Err(UserError::Unknown { name: name.to_owned() });
        }
        if is_new && !is_known && self.entries.len() >= USERS_MAX {
            return Err(UserError::TooMany { most: USERS_MAX });
        }
        let others = self.entries.values().map(|entry| &entry.record).filter(|record| record.name != name);
        let mut records: Vec<Record> = others.cloned().collect();
        match change {
            Change::Put(record) => records.push(record.clone()),
            Change::Permit { permissions, .. } => {
                let old = self.entries.get(name).map(|entry| entry.record.clone());
                records.extend(old.map(|record| Record { permissions: permissions.clone(), ..record }));
            }
            Change::Remove { .. } => {}
        }
        Ok(records)
    }

    /// Makes a change that has been written.
    pub fn apply(&mut self, change: &Change) -> Result<(), UserError> {
        let record = match change {
            Change::Put(record) => Some(record.clone()),
            Change::Permit { name, permissions } => {
                self.entries.get(name).map(|entry| Record { permissions: permissions.clone(), ..entry.record.clone() })
            }
            Change::Remove { name } => {
                self.entries.remove(name);
                None
            }
        };
        if let Some(record) = record {
            self.entries.insert(record.name.clone(), Entry::new(record)?);
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    v: u32,
    users: Vec<Record>,
}

/// Replaces the file of users, durably.
pub(crate) fn write(data: &Path, users: Vec<Record>) -> io::Result<()> {
    let (fresh, path): (PathBuf, PathBuf) = (data.join("users.json.new"), data.join(FILE));
    let text = serde_json::to_vec(&Kept { v: FORMAT, users })?;
    let mut file = create_private(&fresh)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    File::open(data)?.sync_all()
}
