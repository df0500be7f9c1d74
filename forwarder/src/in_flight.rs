//! What is in flight: received, and not yet settled.
//!
//! [`budget`] bounds it, and so the forwarder's memory, before anything is received. [`table`] has an
//! entry for each message, which says when its visibility timeout has to be renewed. Both are given back
//! by a message's [`Guard`].

mod budget;
mod table;

pub(crate) use budget::{Budget, Reservation};
pub(crate) use table::{Due, Guard, InFlight};
