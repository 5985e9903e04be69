//! The program `smtp-oauth-bridge`; everything is in the library.

fn main() -> std::process::ExitCode {
    smtp_oauth_bridge::cli::main()
}
