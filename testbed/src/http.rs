//! The little of HTTP that a look at a page of the loopback needs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The whole answer to a GET, head and body.
pub async fn get(port: u16, path: &str) -> std::io::Result<String> {
    get_with(port, path, "Accept: */*").await
}

/// The same with a header of one's own.
pub async fn get_with(port: u16, path: &str, header: &str) -> std::io::Result<String> {
    let head = format!("HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}");
    ask(port, path, &head).await
}

/// The whole answer, not in chunks.
pub async fn get_1_0(port: u16, path: &str) -> std::io::Result<String> {
    ask(port, path, "HTTP/1.0").await
}

async fn ask(port: u16, path: &str, head: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} {head}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
