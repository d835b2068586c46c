//! The two connections of a link.

use std::sync::Arc;

use super::{connection::Connection, status::Status};

/// Both connections; they stay open as long as a link, a publisher or a consumer holds this.
pub(super) struct Connections {
    pub(super) publishing: Arc<Connection>,
    pub(super) consuming: Arc<Connection>,
    pub(super) status: Arc<Status>,
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.status.close();
        self.consuming.close();
        self.publishing.close();
    }
}
