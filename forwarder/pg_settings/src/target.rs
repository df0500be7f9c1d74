//! `target_session_attrs`: which servers of several will do (PostgreSQL manual, "Parameter Key Words").

use crate::error::Error;
use crate::parameters::Parameters;
use tokio_postgres::{Client, SimpleQueryMessage};

/// What is asked of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

const NAMES: [(&str, Target); 6] = [
    ("any", Target::Any),
    ("read-write", Target::ReadWrite),
    ("read-only", Target::ReadOnly),
    ("primary", Target::Primary),
    ("standby", Target::Standby),
    ("prefer-standby", Target::PreferStandby),
];

impl Target {
    pub(crate) fn read(given: &mut Parameters) -> Result<Self, Error> {
        Ok(given.take_one_of("target_session_attrs", &NAMES)?.unwrap_or(Self::Any))
    }

    /// What to look for in all servers, one after the other.
    pub(crate) fn passes(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Any],
            Self::ReadWrite => &[Self::ReadWrite],
            Self::ReadOnly => &[Self::ReadOnly],
            Self::Primary => &[Self::Primary],
            Self::Standby => &[Self::Standby],
            Self::PreferStandby => &[Self::Standby, Self::Any],
        }
    }

    /// Why a server won't do, if it won't.
    pub(crate) async fn misses(self, client: &Client) -> Result<Option<&'static str>, tokio_postgres::Error> {
        const READ_ONLY: &str = "SHOW transaction_read_only";
        const STANDBY: &str = "SELECT pg_catalog.pg_is_in_recovery()";
        let (query, wanted, missed) = match self {
            Self::Any | Self::PreferStandby => return Ok(None),
            Self::ReadWrite => {
                (READ_ONLY, "off", "is read-only: a standby, or on its way to become a primary")
            }
            Self::ReadOnly => (READ_ONLY, "on", "is not read-only"),
            Self::Primary => (STANDBY, "f", "is a standby"),
            Self::Standby => (STANDBY, "t", "is no standby"),
        };
        let answer = client.simple_query(query).await?;
        let found = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Ok((found != Some(wanted)).then_some(missed))
    }
}
