//! Rows of applications, each with all versions of its package.

use contract::ids::{ApplicationId, PackageVersion};
use model::{application::ApplicationRow, health::Unreadable};
use rusqlite::{Connection, Row, params};

use crate::{
    StoreError,
    sqlite::cells::{self, Cells},
};

/// The columns that [`row`] reads.
pub(super) const SELECT: &str = "
SELECT id, version, display_name, allow_updates, default_version, packages, created_at, modified_at
FROM applications WHERE 1";

/// Inserts or replaces an application.
pub(super) fn put(connection: &Connection, application: &ApplicationRow) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO applications (id, version, display_name, allow_updates, default_version, packages, created_at,
        modified_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    connection.prepare_cached(sql)?.execute(params![
        application.id.as_str(),
        application.version.cast_signed(),
        application.display_name,
        application.allow_updates,
        application.default_version.as_ref().map(PackageVersion::as_str),
        cells::list(&application.packages),
        application.created_at.0,
        application.modified_at.0,
    ])?;
    Ok(())
}

/// Removes an application with its packages.
pub(super) fn delete(connection: &Connection, application: &ApplicationId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM applications WHERE id = ?1")?.execute([application.as_str()])?;
    Ok(())
}

/// All applications.
pub(super) fn load(connection: &Connection, noted: &mut Vec<Unreadable>) -> Result<Vec<ApplicationRow>, StoreError> {
    let mut statement = connection.prepare(SELECT)?;
    let mut rows = statement.query([])?;
    let mut applications = Vec::new();
    while let Some(found) = rows.next()? {
        applications.extend(cells::or_note(found, row(found), noted)?);
    }
    Ok(applications)
}

/// Reads a row of [`SELECT`].
pub(super) fn row(row: &Row<'_>) -> Result<ApplicationRow, StoreError> {
    let cells = &Cells::new(row, "applications");
    Ok(ApplicationRow {
        id: cells.name("id")?,
        version: cells.number("version")?,
        display_name: cells.get("display_name")?,
        allow_updates: cells.flag("allow_updates")?,
        default_version: cells.name_if("default_version")?,
        packages: cells.list("packages")?,
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
    })
}
