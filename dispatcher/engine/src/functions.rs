//! Functions of pools: changes that people ask for, and what agents are told of them.
//!
//! ```text
//! deploy ──► a new version, active ──► the set's number changes ──► heartbeats tell it ──► agents ask for the set
//! rollback ──► an older version is active
//! ```

use broker_config::topology;
use contract::{
    function::{FunctionSpec, PoolFunctions, Runtime},
    ids::{FunctionId, PoolId},
    message::ControlKind,
    time::Timestamp,
};
use model::{
    condition::Condition,
    function::{FunctionChange, FunctionRow, FunctionVersion},
    property,
    refusal::{Code, Refusal},
};
use serde_json::{Map, Value};

use crate::{command::Done, command_error::CommandError, world::World};

/// Functions of one pool at most: all of them travel in one message to each of its agents.
const FUNCTIONS_MAX: usize = 100;
/// Bytes that the settings of one function may take, for the same reason.
const SPEC_BYTES_MAX: usize = 32 * 1024;

fn missing(function: &FunctionId) -> Refusal {
    Refusal::new(Code::FunctionNotFound, "The pool has no such function.").with("FunctionId", function)
}

impl World {
    fn open_function(&mut self, pool: &PoolId, id: &FunctionId, condition: &Condition) -> Result<FunctionRow, Refusal> {
        let entry = self.open_pool(pool, &Condition::default())?;
        let row = entry.functions.get(id).ok_or_else(|| missing(id))?;
        condition.check(row.version, row.modified_at)?;
        Ok(row.clone())
    }

    pub(super) fn create_function(
        &mut self,
        pool: &PoolId,
        id: FunctionId,
        settings: Map<String, Value>,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, &Condition::default())?;
        let pool = entry.record.id.clone();
        if entry.functions.contains_key(&id) {
            let refusal = Refusal::new(Code::FunctionExists, "The pool has a function of this name already.").with("FunctionId", &id);
            return Err(refusal.hint("PATCH it to deploy a new version.").into());
        }
        if entry.functions.len() >= FUNCTIONS_MAX {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The pool has as many functions as it may have.");
            return Err(refusal
                .with("MaxLimit", FUNCTIONS_MAX)
                .hint("Delete one that is not needed any more, or use another pool.")
                .into());
        }
        let spec = read(settings)?;
        let mut row = FunctionRow { pool, id, version: 0, active: 0, versions: Vec::new(), created_at: now, modified_at: now };
        row.deploy(FunctionVersion { number: 1, uid: self.next_version(), spec, created_at: now });
        self.keep_function(row, now)
    }

    pub(super) fn change_function(
        &mut self,
        pool: &PoolId,
        id: &FunctionId,
        change: FunctionChange,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let mut row = self.open_function(pool, id, condition)?;
        match change {
            FunctionChange::Activate(number) if row.versions.iter().any(|version| version.number == number) => row.active = number,
            FunctionChange::Activate(number) => {
                let refusal = Refusal::new(Code::FunctionNotFound, "The function has no such version any more.").with("Version", number);
                return Err(refusal.hint("GET the function; its versions are those that may become active.").into());
            }
            FunctionChange::Deploy(changed) => {
                let mut settings = match row.active().map(|active| serde_json::to_value(&active.spec)) {
                    Some(Ok(Value::Object(settings))) => settings,
                    _ => Map::new(),
                };
                for (name, value) in changed {
                    if value.is_null() {
                        settings.remove(&name).map(drop)
                    } else {
                        settings.insert(name, value).map(drop)
                    };
                }
                let number = row.versions.last().map_or(1, |version| version.number.saturating_add(1));
                row.deploy(FunctionVersion { number, uid: self.next_version(), spec: read(settings)?, created_at: now });
            }
        }
        self.keep_function(row, now)
    }

    pub(super) fn delete_function(
        &mut self,
        pool: &PoolId,
        id: &FunctionId,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let row = self.open_function(pool, id, condition)?;
        self.store.delete_function(&row.pool, &row.id)?;
        let version = self.next_version();
        if let Some(entry) = self.pools.get_mut(&row.pool) {
            entry.functions.remove(id);
            entry.functions_number = version;
        }
        self.tell_functions(&row.pool);
        Ok(Done::Changed { version, at: now })
    }

    fn keep_function(&mut self, mut row: FunctionRow, now: Timestamp) -> Result<Done, CommandError> {
        (row.version, row.modified_at) = (self.next_version(), now);
        self.store.put_function(&row)?;
        let (version, pool) = (row.version, row.pool.clone());
        if let Some(entry) = self.pools.get_mut(&pool) {
            entry.functions_number = version;
            entry.functions.insert(row.id.clone(), row);
        }
        self.tell_functions(&pool);
        Ok(Done::Changed { version, at: now })
    }

    /// Lets agents send a heartbeat at once, whose answer tells the new number.
    fn tell_functions(&mut self, pool: &PoolId) {
        self.control(topology::pool_control_key(pool), ControlKind::Heartbeat);
    }

    /// Takes over the functions that were loaded. Their number is a new one, so that every agent asks for them again: no
    /// row says which functions were deleted.
    pub(super) fn load_functions(&mut self, rows: Vec<FunctionRow>) {
        for row in rows {
            let number = self.next_version();
            if let Some(entry) = self.pools.get_mut(&row.pool) {
                entry.functions_number = number;
                entry.functions.insert(row.id.clone(), row);
            }
        }
    }

    /// The number of a pool's functions.
    pub(super) fn functions_number(&self, pool: &PoolId) -> u64 {
        self.pools.get(pool).map_or(0, |entry| entry.functions_number)
    }

    /// The pool's functions and their number, as its agents receive them.
    pub(super) fn functions_of(&self, pool: &PoolId) -> PoolFunctions {
        self.pools.get(pool).map_or_else(PoolFunctions::default, |entry| PoolFunctions {
            number: entry.functions_number,
            functions: entry.functions.values().filter_map(FunctionRow::for_agents).collect(),
        })
    }
}

/// Reads the settings of a version, and refuses those that do not agree.
fn read(settings: Map<String, Value>) -> Result<FunctionSpec, Refusal> {
    let value = Value::Object(settings);
    let bytes = value.to_string().len();
    if bytes > SPEC_BYTES_MAX {
        return Err(Refusal::new(Code::InvalidPropertyValue, "The settings of the function are too large.")
            .with("Bytes", bytes)
            .with("MaxLimit", SPEC_BYTES_MAX)
            .hint("Put large values into the package."));
    }
    let spec: FunctionSpec = serde_json::from_value(value)
        .map_err(|error| Refusal::new(Code::InvalidInput, "The settings of the function cannot be read.").with("Reason", error))?;
    if spec.command_line.is_none() && spec.runtime != Runtime::Lambda {
        return Err(property::missing("commandLine"));
    }
    if spec.command_line.is_none() && spec.handler.is_none() && spec.package.is_none() {
        return Err(property::missing("handler"));
    }
    Ok(spec)
}
