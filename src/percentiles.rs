//! Sorted figures and their percentiles.

use contract::time::Timestamp;

use crate::work::Task;

/// Figures in ascending order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Percentiles(Vec<f64>);

impl Percentiles {
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Percentiles {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Percentiles(figures)
    }

    /// The figure that `percent` of all do not exceed; zero when there are none.
    pub(crate) fn at(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).or(self.0.last()).copied().unwrap_or(0.0)
    }
}

/// Milliseconds from a task's creation to its start.
pub(crate) fn queue_wait_ms(task: &Task) -> Option<f64> {
    let created = Timestamp::parse(task.creation_time.as_deref()?)?;
    let started = Timestamp::parse(task.execution_info.start_time.as_deref()?)?;
    Some(started.since(created) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_figures_that_were_measured() {
        let all = Percentiles::of((1..=100).rev().map(f64::from));
        assert_eq!((all.at(50.0), all.at(99.0), all.at(100.0), all.at(0.0)), (50.0, 99.0, 100.0, 1.0));
        assert_eq!(Percentiles::default().at(50.0), 0.0);
    }
}
