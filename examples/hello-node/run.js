#!/usr/bin/env node
console.log("This line goes to the log.");
console.log("~~> " + JSON.stringify({ greeting: `Hello, ${process.env.NAME}!` }));
