//! What is written of a metric once, and the only way to record it: a family of counters, gauges or histograms by its descriptor.

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, SharedString, with_recorder};

/// Says nothing that a recorder acts on.
static METADATA: Metadata<'static> = Metadata::new("piecework", Level::INFO, None);

/// The values of a metric without labels.
pub const NO_LABELS: [&str; 0] = [];

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations below bounds.
    Histogram,
}

impl Kind {
    /// As Prometheus spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric, as the documentation and the HELP line of the page describe it.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// As Prometheus names it: base unit at the end, `_total` for counters.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The unit of its value.
    pub unit: &'static str,
    /// The names of its labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// Which processes have it.
    pub parts: &'static str,
    /// The upper bounds of a histogram's buckets; empty for other kinds.
    pub buckets: &'static [f64],
    /// Help text for operators, one or two sentences.
    pub meaning: &'static str,
}

impl Descriptor {
    fn key<L: Into<SharedString>>(&self, values: impl IntoIterator<Item = L>) -> Key {
        let labels: Vec<Label> = self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, value)).collect();
        Key::from_parts(self.name, labels)
    }
}

macro_rules! family {
    ($(#[$doc:meta])* $family:ident, $handle:ident, $register:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $family<const LABELS: usize>(&'static Descriptor);

        impl<const LABELS: usize> $family<LABELS> {
            pub(super) const KIND: Kind = $kind;

            pub(super) const fn new(descriptor: &'static Descriptor) -> $family<LABELS> {
                $family(descriptor)
            }

            pub(super) const fn descriptor(self) -> &'static Descriptor {
                self.0
            }

            /// The one with these label values; looking it up costs about a microsecond, so a hot path keeps it.
            pub fn of<L: Into<SharedString>>(self, values: [L; LABELS]) -> $handle {
                with_recorder(|recorder| recorder.$register(&self.0.key(values), &METADATA))
            }
        }
    };
}

family!(
    /// Counters of one name.
    Counters,
    Counter,
    register_counter,
    Kind::Counter
);
family!(
    /// Gauges of one name.
    Gauges,
    Gauge,
    register_gauge,
    Kind::Gauge
);
family!(
    /// Histograms of one name.
    Histograms,
    Histogram,
    register_histogram,
    Kind::Histogram
);
