//! The little of HTTP that a look at a page of the loopback needs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The whole answer to a GET, head and body.
pub async fn get(port: u16, path: &str) -> std::io::Result<String> {
    get_with(port, path, "Accept: */*").await
}

/// The same with a header of one's own.
pub async fn get_with(port: u16, path: &str, header: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
