//! How large an answer may be, and how long it may take. No SQS comes near these limits; they are for
//! servers that are broken or hostile.

use std::time::Duration;

/// The most bytes of an answer: ten messages of 1 MiB (SQS developer guide, "Amazon SQS message quotas"),
/// with each character written in the longest way that JSON and XML have, six bytes.
pub(crate) const BYTES: usize = 64 << 20;
/// The most bytes of an answer that holds no messages: what became of ten, or a queue's attributes.
pub(crate) const OTHER_BYTES: usize = 1 << 20;
/// An answer that does not say its length, as SQS's all do, is read beside others up to this; what is
/// larger is read one at a time.
pub(crate) const UNANNOUNCED_BYTES: usize = 1 << 20;
/// How long an answer may take from its first byte to its last.
pub(crate) const TIME: Duration = Duration::from_secs(30);
/// The most values or elements of an answer. A message of SQS has less than a hundred, with all attributes,
/// and an answer has ten messages. Values take much more memory than the bytes that they are written in.
pub(crate) const VALUES: usize = 4096;
/// The values of an answer of this size are not counted: they take little memory, however many they are.
/// Most receives bring less.
pub(crate) const UNCOUNTED_BYTES: usize = 16 << 10;
/// How deep an answer may be nested. SQS's are five deep.
pub(crate) const DEPTH: usize = 16;
/// How far the time that an answer gives may be from this machine's. A clock that is set to local time in place of UTC is
/// off by less.
pub(crate) const SKEW: Duration = Duration::from_secs(24 * 3600);
