//! Gauges that are read when they are asked for.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// Registers a gauge whose value `read` returns each time that the metrics are asked for.
pub fn register_gauge<N: EncodeGaugeValue + 'static>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    read: impl Fn() -> N + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Gauge { name, help, unit, read }));
}

struct Gauge<R> {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    read: R,
}

impl<R> fmt::Debug for Gauge<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<N: EncodeGaugeValue + 'static, R: Fn() -> N + Send + Sync + 'static> Collector for Gauge<R> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new((self.read)());
        // As registered metrics have it: a full stop at the end.
        let help = format!("{}.", self.help);
        gauge.encode(encoder.encode_descriptor(self.name, &help, self.unit.as_ref(), gauge.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn a_gauge_is_read_each_time() {
        let temperature = Arc::new(AtomicU64::new(20));
        let mut registry = Registry::with_prefix("room");
        let read = temperature.clone();
        register_gauge(&mut registry, "warmth", "How warm it is", None, move || read.load(Relaxed));
        for degrees in [20, 21] {
            temperature.store(degrees, Relaxed);
            let mut page = String::new();
            encode(&mut page, &registry).unwrap();
            let sample = format!("room_warmth {degrees}\n");
            assert!(
                page.contains("# HELP room_warmth How warm it is.\n") && page.contains(&sample),
                "{page}"
            );
        }
    }
}
