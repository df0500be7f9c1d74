//! SQS emulators: LocalStack, which behaves like SQS, and rustack, which is fast.

use crate::guardian::{Guardian, free_port, wait_until};
use crate::{Result, cache, http};
use aws_sdk_sqs::config::{Credentials, Region};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use std::path::PathBuf;

/// The version that `testbed/setup.sh` installs.
pub const LOCALSTACK: &str = "localstack-4.12.0";
/// The version that `testbed/setup.sh` installs.
pub const RUSTACK: &str = "rustack-0.12.0";

/// The region of every queue here.
pub const REGION: &str = "us-east-1";

/// An emulator, gone with its value.
#[derive(Debug)]
pub struct Emulator {
    guardian: Guardian,
    port: u16,
}

impl Emulator {
    /// Starts LocalStack with SQS alone.
    pub async fn localstack() -> Result<Self> {
        let python = cache().join(LOCALSTACK).join("bin/python");
        let command = [python.display().to_string(), "-m".to_owned(), "localstack.runtime.main".to_owned()];
        let settings = [
            ("SERVICES", "sqs"),
            ("EAGER_SERVICE_LOADING", "1"),
            ("DISABLE_EVENTS", "1"),
            ("SKIP_SSL_CERT_DOWNLOAD", "1"),
            ("DNS_ADDRESS", "0"),
            // Its files go into its own folder, also where it would think that it is in a container.
            ("OVERRIDE_IN_DOCKER", "0"),
            // Starting is half compiling its modules: what is compiled is kept beside them, whatever the caller's Python does.
            ("PYTHONDONTWRITEBYTECODE", ""),
        ];
        Self::start("localstack", python, &command, &settings, |answer| {
            answer.contains(r#""sqs": "running""#)
        })
        .await
    }

    /// Starts rustack, which has LocalStack's health page, too.
    pub async fn rustack() -> Result<Self> {
        let program = cache().join(RUSTACK).join("bin/rustack");
        let command = [program.display().to_string()];
        Self::start("rustack", program, &command, &[], |answer| answer.starts_with("HTTP/1.1 200")).await
    }

    async fn start(
        name: &str,
        program: PathBuf,
        command: &[String],
        settings: &[(&str, &str)],
        is_ready: fn(&str) -> bool,
    ) -> Result<Self> {
        if !program.exists() {
            return Err(format!("{} is missing; run: testbed/setup.sh", program.display()).into());
        }
        let folder = Guardian::folder(name)?;
        let port = free_port()?;
        let mut with_settings = vec!["env".to_owned()];
        let own = [
            ("GATEWAY_LISTEN", format!("127.0.0.1:{port}")),
            ("HOME", folder.display().to_string()),
            ("FILESYSTEM_ROOT", folder.join("files").display().to_string()),
        ];
        with_settings.extend(own.iter().map(|(name, value)| format!("{name}={value}")));
        with_settings.extend(settings.iter().map(|(name, value)| format!("{name}={value}")));
        with_settings.extend_from_slice(command);
        // It holds nothing that is wanted afterwards, and LocalStack takes seconds to end by itself.
        let guardian = Guardian::new(&folder, "KILL", &with_settings)?;
        let mut emulator = Self { guardian, port };
        emulator.guardian.start()?;
        let ready = wait_until(name, || async {
            http::get(port, "/_localstack/health").await.is_ok_and(|answer| is_ready(&answer))
        })
        .await;
        ready.map_err(|error| format!("{error}\n{}", emulator.guardian.log()))?;
        Ok(emulator)
    }

    /// Stops it with a signal; what it held is lost.
    pub fn stop(&mut self, signal: &str) -> Result<()> {
        self.guardian.stop(signal)
    }

    /// The server's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.guardian.pid()
    }

    /// The port on the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What `AWS_ENDPOINT_URL` has to say.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a client's environment has to say, any client's.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        environment(&self.endpoint())
    }

    /// A client of its own.
    pub fn client(&self) -> aws_sdk_sqs::Client {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version_latest()
            .http_client(http)
            .endpoint_url(self.endpoint())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "testbed"))
            .build();
        aws_sdk_sqs::Client::from_conf(config)
    }
}

/// What the environment of an endpoint's client has to say.
pub fn environment(endpoint: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}
