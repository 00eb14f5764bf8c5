//! From a number to a place on an axis, and which numbers stand beside it.

/// How numbers are laid out on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// From zero on.
    Linear,
    /// By their logarithm; numbers that have none are not drawn.
    Log,
    /// By their logarithm, and a place before all others for what is below
    /// the given number: where it matters that nothing is nothing.
    LogFrom(f64),
}

/// An axis between two places of a drawing.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    kind: Kind,
    /// Both after [`Scale::measure`].
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// An axis that has room for all of these, from one place to the other.
    pub fn over(
        kind: Kind,
        numbers: impl IntoIterator<Item = f64>,
        from: f64,
        to: f64,
    ) -> Self {
        let mut scale = Scale { kind, low: 0.0, high: 1.0, from, to };
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for number in numbers {
            if let Some(at) = scale.measure(number) {
                (low, high) = (low.min(at), high.max(at));
            }
        }
        if low > high {
            return scale;
        }
        if kind == Kind::Linear {
            (low, high) = (0.0, if high > 0.0 { high * 1.02 } else { 1.0 });
        } else {
            // A fifth of a decade at least: what is the same looks the same.
            let room = ((high - low) * 0.04).max((0.2 - (high - low)) / 2.0);
            (low, high) = (low - room, high + room);
        }
        (scale.low, scale.high) = (low, high);
        scale
    }

    fn measure(&self, number: f64) -> Option<f64> {
        let at = match self.kind {
            Kind::Linear => number.max(0.0),
            Kind::Log if number <= 0.0 => return None,
            Kind::Log => number.log10(),
            Kind::LogFrom(first) if number < first => first.log10() - 0.8,
            Kind::LogFrom(_) => number.log10(),
        };
        at.is_finite().then_some(at)
    }

    /// Its place, if it has one.
    pub fn at(&self, number: f64) -> Option<f64> {
        let share = (self.measure(number)? - self.low) / (self.high - self.low);
        Some(self.from + share * (self.to - self.from))
    }

    /// Its place, and the axis' end for what is beyond it.
    pub fn at_or_end(&self, number: f64) -> f64 {
        let (left, right) = (self.from.min(self.to), self.from.max(self.to));
        let first = if self.low < self.high { self.from } else { self.to };
        self.at(number).unwrap_or(first).clamp(left, right)
    }

    /// Round numbers on the axis, about as many as asked for and never more
    /// than twice as many.
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        let round = match self.kind {
            Kind::Linear => linear(self.low, self.high, wanted),
            Kind::Log => logarithmic(self.low, self.high, wanted),
            Kind::LogFrom(first) => {
                let low = self.low.max(first.log10() - 1e-9);
                let mut ticks = vec![0.0];
                ticks.extend(logarithmic(low, self.high, wanted));
                ticks
            }
        };
        round.into_iter().filter(|tick| self.holds(*tick)).collect()
    }

    /// If it has a place that is not beyond the axis' ends.
    pub fn holds(&self, number: f64) -> bool {
        let Some(at) = self.measure(number) else { return false };
        let slack = (self.high - self.low) * 1e-9;
        (self.low - slack..=self.high + slack).contains(&at)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let least = (high - low) / wanted.max(1) as f64;
    if !(least.is_finite() && least > 0.0) {
        return Vec::new();
    }
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|it| it * power);
    let within =
        |step: f64| ((low / step).ceil() as i64, (high / step).floor() as i64);
    // Two numbers do not show that an axis is even.
    let few = |step: f64| within(step).1 - within(step).0 < 2;
    let step = steps.iter().position(|it| *it >= least).map(|at| {
        let smaller = few(steps[at]) && at > 0;
        steps[if smaller { at - 1 } else { at }]
    });
    let step = step.unwrap_or(least);
    let (first, last) = within(step);
    // A product of the step would show its rounding: 3 × 0.1.
    let divisor = (1.0 / step).round();
    let exact = |n: i64| match step < 1.0 {
        true => n as f64 / divisor,
        false => n as f64 * step,
    };
    (first..=last).map(exact).collect()
}

/// Powers of ten; where these are few, numbers between them too.
fn logarithmic(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let (first, last) = (low.floor() as i32, high.ceil() as i32);
    let slack = (high - low) * 1e-9;
    let inside =
        |number: &f64| (low - slack..=high + slack).contains(&number.log10());
    let among = |steps: &[f64]| -> Vec<f64> {
        let powers = (first..=last).map(|power| 10f64.powi(power));
        let all = powers.flat_map(|power| steps.iter().map(move |s| s * power));
        all.filter(inside).collect()
    };
    let few: [&[f64]; 4] = [
        &[1.0, 2.0, 5.0],
        &[1.0, 3.0],
        &[1.0],
        &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    ];
    let rough = few[..3].iter().map(|steps| among(steps));
    let fits = |ticks: &Vec<f64>| (3..=wanted * 3 / 2).contains(&ticks.len());
    if let Some(ticks) = rough.into_iter().find(fits) {
        return ticks;
    }
    let decades = among(&[1.0]);
    if decades.len() > wanted {
        let every = decades.len().div_ceil(wanted);
        return decades.into_iter().step_by(every).collect();
    }
    let fine = among(few[3]);
    if fits(&fine) {
        return fine;
    }
    let even = |more| linear(10f64.powf(low), 10f64.powf(high), wanted + more);
    let enough = |ticks: &Vec<f64>| ticks.len() >= 3;
    (0..9).map(even).find(enough).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        for (numbers, ticks) in [
            ([0.9, 40.0], vec![1.0, 2.0, 5.0, 10.0, 20.0]),
            ([4.4, 5.2], vec![4.0, 4.5, 5.0, 5.5, 6.0]),
            ([0.62, 1.4], vec![0.8, 1.0, 1.2, 1.4]),
            ([1.0, 1e6], vec![1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6]),
        ] {
            let scale = Scale::over(Kind::Log, numbers, 0.0, 100.0);
            let seen = scale.ticks(5);
            let same =
                seen.iter().zip(&ticks).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(same && seen.len() == ticks.len(), "{seen:?} {ticks:?}");
        }
        let scale = Scale::over(Kind::Linear, [0.31], 0.0, 100.0);
        assert_eq!(scale.ticks(4), [0.0, 0.1, 0.2, 0.3]);
        let scale = Scale::over(Kind::Linear, [9.3], 0.0, 100.0);
        assert_eq!(scale.ticks(4), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn nothing_has_a_place_of_its_own() {
        let kind = Kind::LogFrom(1000.0);
        let scale = Scale::over(kind, [0.0, 1000.0, 10_000.0], 0.0, 100.0);
        let places = [0.0, 1000.0, 10_000.0].map(|it| scale.at(it));
        assert!(places.is_sorted() && places[0] > Some(0.0), "{places:?}");
        assert!(scale.ticks(5).starts_with(&[0.0, 1000.0]));
    }

    #[test]
    fn what_has_no_logarithm_has_no_place() {
        let scale = Scale::over(Kind::Log, [-1.0, 0.0, 1.0], 0.0, 100.0);
        assert_eq!(scale.at(0.0), None);
        assert_eq!(scale.at(f64::NAN), None);
        let empty = Scale::over(Kind::Log, [], 0.0, 100.0);
        assert_eq!(empty.at(1.0), Some(0.0));
    }
}
