//! A client that sends many statements at once and then is gone, as a pooler or a program in trouble does. No transaction begins or
//! ends between them but by themselves (PostgreSQL manual, "Message Flow").

use crate::Result;
use crate::cluster::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends the statements with one Sync behind them, reads the answers and leaves. Gives the first error's SQLSTATE and message, if there is one.
pub async fn send_at_once(
    cluster: &Cluster,
    user: &str,
    database: &str,
    statements: &[&str],
) -> Result<Option<String>> {
    let mut server = TcpStream::connect(("127.0.0.1", cluster.port())).await?;
    let version = 196_608_u32.to_be_bytes(); // 3.0
    let settings = format!("user\0{user}\0database\0{database}\0\0");
    server.write_all(&framed(&[&version[..], settings.as_bytes()].concat())?).await?;
    answers(&mut server).await?;
    let mut sent = Vec::new();
    for statement in statements {
        sent.push(b'P'); // Parse: no name, the statement, no types
        sent.extend(framed(format!("\0{statement}\0\0\0").as_bytes())?);
        sent.push(b'B'); // Bind: no names, no parameters
        sent.extend(framed(&[0; 8])?);
        sent.push(b'E'); // Execute: no name, all rows
        sent.extend(framed(&[0; 5])?);
    }
    sent.push(b'S');
    sent.extend(framed(&[])?);
    server.write_all(&sent).await?;
    let error = answers(&mut server).await?;
    server.write_all(&[b'X', 0, 0, 0, 4]).await?;
    server.read_to_end(&mut Vec::new()).await?; // the server has ended the session
    Ok(error)
}

/// A message without its type: its length, which counts itself, and what is in it.
fn framed(content: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(content.len() + 4)?;
    Ok([&length.to_be_bytes()[..], content].concat())
}

/// Reads up to ReadyForQuery.
async fn answers(server: &mut TcpStream) -> Result<Option<String>> {
    let mut error = None;
    loop {
        let kind = server.read_u8().await?;
        let mut content = vec![0; server.read_u32().await? as usize - 4];
        server.read_exact(&mut content).await?;
        match kind {
            b'E' => {
                let fields = String::from_utf8_lossy(&content).into_owned();
                let field = |name| fields.split('\0').find_map(|field| field.strip_prefix(name));
                error.get_or_insert(format!(
                    "{} {}",
                    field('C').unwrap_or_default(),
                    field('M').unwrap_or_default()
                ));
            }
            b'Z' => return Ok(error),
            _ => {}
        }
    }
}
