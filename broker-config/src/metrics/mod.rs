//! What every part tells of itself to an operator's Prometheus.
//!
//! `table` has each metric once, with its type, unit, labels and meaning; it can be recorded only through its entry there.

mod descriptor;
mod document;
mod page;
mod process;
mod table;

pub use ::metrics::{Counter, Gauge, Histogram};

pub use self::{
    descriptor::{Counters, Descriptor, Gauges, Histograms, Kind, NO_LABELS},
    document::document,
    page::{CONTENT_TYPE, install, page},
    table::*,
};
