//! What only this model promises: no byte is lost with a notice, a spool that
//! fails ends clients only, and a stop waits for what is in flight.

mod lost_notices;
mod server;
mod spool;
mod stop;
mod sys;
