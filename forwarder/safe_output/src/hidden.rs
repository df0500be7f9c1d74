//! Events of libraries whose texts may hold a secret: a line of one's own stands for each.

use tracing::callsite::{Callsite, Identifier};
use tracing::field::FieldSet;
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// What is logged in the place of an event, by the module that it is of; `None` for an event that is logged as it is.
pub type Instead = fn(module: &str) -> Option<String>;

/// Formats events as another format does, but for those that something else is logged in place of.
pub(crate) struct Hidden<F> {
    pub(crate) format: F,
    pub(crate) instead: Instead,
}

impl<S, N, F> FormatEvent<S, N> for Hidden<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let Some(text) = (self.instead)(event.metadata().target()) else {
            return self.format.format_event(context, writer, event);
        };
        let Some(message) = METADATA.fields().field("message") else { return Err(std::fmt::Error) };
        let (fields, text) = (METADATA.fields(), format_args!("{text}"));
        let values = [(&message, Some(&text as &dyn tracing::Value))];
        let values = fields.value_set(&values);
        self.format.format_event(context, writer, &Event::new(&METADATA, &values))
    }
}

/// What is logged instead is a warning of its own.
struct Own;

static OWN: Own = Own;
static METADATA: Metadata<'static> = Metadata::new(
    "event in place of another",
    module_path!(),
    Level::WARN,
    Some(file!()),
    Some(line!()),
    Some(module_path!()),
    FieldSet::new(&["message"], Identifier(&OWN)),
    Kind::EVENT,
);

impl Callsite for Own {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &METADATA
    }
}
