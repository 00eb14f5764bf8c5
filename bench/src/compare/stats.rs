//! Medians with their intervals, and straight lines.

use crate::results::{Estimate, Fit};

/// How sure an interval is to hold the true median.
const CONFIDENCE: f64 = 0.95;

impl Estimate {
    /// The median of `values` with the interval between two of them that
    /// holds the true one, whatever their distribution (by the sign test:
    /// each value is as likely above it as below). Fewer than six are too few
    /// for that: their interval is all they span. Of no values, zero.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Estimate {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let Some(last) = values.len().checked_sub(1) else {
            return Estimate::default();
        };
        let cut = outside(values.len());
        Estimate {
            median: f64::midpoint(values[last / 2], values[values.len() / 2]),
            low: values[cut],
            high: values[last - cut],
        }
    }
}

/// How many values may be left out at each end.
fn outside(count: usize) -> usize {
    // Binomial(count, 1/2), from no value below the median on.
    let mut exactly = 0.5f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut at_most = exactly;
    let mut cut = 0;
    while at_most * 2.0 <= 1.0 - CONFIDENCE {
        cut += 1;
        exactly *= (count + 1 - cut) as f64 / cut as f64;
        at_most += exactly;
    }
    // `at_most` counts up to `cut` values; the interval may leave out as many
    // as keep the probability of missing it small enough.
    cut.saturating_sub(1)
}

/// A line through points: what is at zero, and what each unit adds.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Where it begins.
    pub base: f64,
    /// How much it rises.
    pub slope: f64,
    /// The share of the variation that it explains.
    pub r_squared: f64,
}

/// The line of least squares through at least two points with different x and
/// a y above zero. A point counts by how far the line passes it by in relation
/// to its y, because the noise of a measurement grows with what is measured:
/// else the dearest points would decide alone.
pub fn line(points: &[(f64, f64)]) -> Option<Line> {
    let weight = |it: &(f64, f64)| 1.0 / (it.1 * it.1);
    let weights: f64 = points.iter().map(weight).sum();
    let mean = |of: &dyn Fn(f64, f64) -> f64| {
        let sum: f64 =
            points.iter().map(|it| weight(it) * of(it.0, it.1)).sum();
        sum / weights
    };
    let (x, y) = (mean(&|x, _| x), mean(&|_, y| y));
    let xx = mean(&|to, _| (to - x) * (to - x));
    let xy = mean(&|to, at| (to - x) * (at - y));
    let yy = mean(&|_, at| (at - y) * (at - y));
    if points.len() < 2 || xx == 0.0 || !weights.is_finite() {
        return None;
    }
    let slope = xy / xx;
    let r_squared = if yy == 0.0 { 1.0 } else { xy * xy / (xx * yy) };
    Some(Line { base: y - slope * x, slope, r_squared })
}

/// What each descriptor more costs: `points` are descriptors, and the cost of
/// a message in every round.
pub fn fit(
    scenario: &str,
    model: &str,
    points: &[(usize, Vec<f64>)],
) -> Option<Fit> {
    if points.len() < 3 {
        return None;
    }
    let medians = points.iter().map(|(descriptors, rounds)| {
        let cost = Estimate::of(rounds.iter().copied());
        (*descriptors as f64, cost.median)
    });
    let whole = line(&medians.collect::<Vec<_>>())?;
    let rounds = points.iter().map(|(_, rounds)| rounds.len()).min()?;
    let slopes = (0..rounds).filter_map(|round| {
        let at = |it: &(usize, Vec<f64>)| (it.0 as f64, it.1[round]);
        let points: Vec<(f64, f64)> = points.iter().map(at).collect();
        Some(line(&points)?.slope)
    });
    let slope = Estimate::of(slopes);
    Some(Fit {
        scenario: scenario.to_owned(),
        model: model.to_owned(),
        base_ns: whole.base,
        ns_per_descriptor: whole.slope,
        low: slope.low,
        high: slope.high,
        r_squared: whole.r_squared,
        points: points.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(count: u32) -> (f64, f64, f64) {
        // Not in order.
        let values = (0..count).map(|it| f64::from((it * 7) % count));
        let Estimate { median, low, high } = Estimate::of(values);
        (median, low, high)
    }

    /// The ranks are those of the tables of the sign test: of 20 values the
    /// 6th and the 15th (96 %), of 6 the first and the last (97 %).
    #[test]
    fn intervals_are_those_of_the_sign_test() {
        assert_eq!(ends(20), (9.5, 5.0, 14.0));
        assert_eq!(ends(6), (2.5, 0.0, 5.0));
        assert_eq!(ends(9), (4.0, 1.0, 7.0));
        assert_eq!(ends(100), (49.5, 39.0, 60.0));
        assert_eq!(ends(1), (0.0, 0.0, 0.0));
        let none = Estimate::of([]);
        assert_eq!(none, Estimate { median: 0.0, low: 0.0, high: 0.0 });
    }

    #[test]
    fn a_median_in_few_intervals_is_missed_no_more_often_than_promised() {
        let mut random = fastrand::Rng::with_seed(1);
        let missed = (0..2000).filter(|_| {
            // Skewed, and its median is at 0.25.
            let values = (0..20).map(|_| random.f64().powi(2));
            let estimate = Estimate::of(values.collect::<Vec<_>>());
            estimate.low > 0.25 || estimate.high < 0.25
        });
        let missed = missed.count();
        assert!((20..110).contains(&missed), "{missed} of 2,000");
    }

    #[test]
    fn a_line_is_found_again() {
        let points: Vec<(f64, f64)> =
            [0.0, 100.0, 900.0, 3000.0].map(|x| (x, 5000.0 + 1.5 * x)).into();
        let found = line(&points).unwrap();
        assert!((found.slope - 1.5).abs() < 1e-9, "{found:?}");
        assert!((found.base - 5000.0).abs() < 1e-6, "{found:?}");
        assert!((found.r_squared - 1.0).abs() < 1e-9, "{found:?}");
        assert!(line(&[(1.0, 2.0), (1.0, 3.0)]).is_none());
        let scattered = [(0.0, 2.0), (1.0, 1.0), (2.0, 2.0), (3.0, 1.0)];
        assert!(line(&scattered).unwrap().r_squared < 0.4);
        // It passes the dear point by as large a part as the cheap ones.
        let bent = [(0.0, 100.0), (10.0, 100.0), (10.0, 300.0)];
        let there = line(&bent).map(|it| it.base + 10.0 * it.slope).unwrap();
        assert!((there - 120.0).abs() < 1e-9, "{there}");
    }

    #[test]
    fn a_fit_has_the_interval_of_its_rounds() {
        let round = |slope: f64| [0, 100, 1000].map(|x| 1.0 + slope * x as f64);
        let rounds: Vec<[f64; 3]> =
            (1..=9).map(|it| round(it as f64)).collect();
        let point =
            |at: usize, x| (x, rounds.iter().map(|it| it[at]).collect());
        let points = [point(0, 0), point(1, 100), point(2, 1000)];
        let fit = fit("scan", "m", &points).unwrap();
        assert!((fit.ns_per_descriptor - 5.0).abs() < 1e-9, "{fit:?}");
        assert_eq!(fit.points, 3);
        assert!((fit.low - 2.0).abs() < 1e-9, "{fit:?}");
        assert!((fit.high - 8.0).abs() < 1e-9, "{fit:?}");
    }
}
