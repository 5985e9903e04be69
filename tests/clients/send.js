// Sends a finished message with nodemailer: {"port", "from", "to": […], "file"} as JSON on standard input.
"use strict";
const fs = require("node:fs");
const nodemailer = require("nodemailer");

const job = JSON.parse(fs.readFileSync(0, "utf8"));
const transport = nodemailer.createTransport({
  host: "127.0.0.1",
  port: job.port,
  name: "client.test",
  secure: false,
  ignoreTLS: true,
});
transport
  .sendMail({ envelope: { from: job.from, to: job.to }, raw: fs.readFileSync(job.file) })
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => transport.close());
