//! The price list can be made, and its prices are in an order that no machine
//! should turn round. In a process of its own: it opens many descriptors, and
//! select, which another test of this package asks, ends at 1,024.

use anyhow::{Context, Result, ensure};
use docs::basics;

#[test]
fn prices_are_measured() -> Result<()> {
    let basics = basics::measure()?;
    let price = |name: &str| {
        let row = basics.rows.iter().find(|row| row.name == name);
        row.map(|row| row.ns.median).context(name.to_owned())
    };
    for row in &basics.rows {
        let ns = &row.ns;
        ensure!(0.0 < ns.low && ns.low <= ns.median, "{row:?}");
        ensure!(ns.median <= ns.high, "{row:?}");
    }
    let ladder = ["clock_gettime", "a system call", "a thread", "a process"];
    for pair in ladder.windows(2) {
        let (less, more) = (price(pair[0])?, price(pair[1])?);
        ensure!(less < more, "{pair:?}: {less} ns and {more} ns");
    }
    let (one, many) = (price("poll of 1")?, price("poll of 1,000")?);
    ensure!(one * 10.0 < many, "poll of 1: {one} ns, of 1,000: {many} ns");
    Ok(())
}
