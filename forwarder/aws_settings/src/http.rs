//! The SDK's HTTP client: TLS by rustls, and proxies as the environment says (`HTTPS_PROXY`, `HTTP_PROXY`,
//! `ALL_PROXY`, `NO_PROXY`, in capitals or not).

use crate::Error;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use std::time::Duration;

/// An idle connection is closed after so long. If the server closed it first, a call that is just being
/// sent would fail.
const IDLE: Duration = Duration::from_secs(10);

/// The variables that name proxies.
const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Whether the proxies can be read. The client passes over one that it can't read, and connects directly.
pub(crate) fn check() -> Result<(), Error> {
    for name in PROXIES {
        let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { continue };
        if !value.to_str().is_some_and(is_proxy) {
            let wrong = "is no URL of a proxy. It has to look like http://proxy.example.com:3128.";
            return Err(Error::Value { name, wrong });
        }
    }
    Ok(())
}

/// As the client reads it: a proxy without a scheme is one of HTTP.
fn is_proxy(value: &str) -> bool {
    const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
    value.parse::<hyper::Uri>().is_ok_and(|url| {
        url.authority().is_some() && url.scheme_str().is_none_or(|scheme| SCHEMES.contains(&scheme))
    })
}

pub(crate) fn client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector =
            Connector::builder().pool_idle_timeout(IDLE).proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_what_the_client_takes_for_one() {
        for proxy in [
            "http://proxy.example.com:3128",
            "proxy:3128",
            "127.0.0.1:3128",
            "https://u:p@[::1]:1",
            "socks5h://p",
        ] {
            assert!(is_proxy(proxy), "{proxy}");
        }
        for text in ["http://u:p@127.0.0.1:x y", "ftp://proxy", "/proxy", "http://", "p q", "http:/proxy"] {
            assert!(!is_proxy(text), "{text}");
        }
    }
}
