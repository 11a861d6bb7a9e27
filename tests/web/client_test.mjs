// Run by test_client_js.py in node: `node client_test.mjs CLIENT_JS URL TOKEN SCENARIO`, prints one line of JSON.

const [, , file, url, token, scenario] = process.argv;
const { Client, Sender } = await import(file);

function say(told) {
  console.log(JSON.stringify(told));
}

/** Everything until the event with this number; `seen` is called for each. */
function until(seq, wishes, seen = () => {}) {
  return new Promise((resolve) => {
    const told = { numbers: [], early: [], states: [], missed: [], resets: 0 };
    const client = new Client({
      url,
      token,
      ...wishes,
      on: {
        event: (event, early) => {
          told.numbers.push(event.seq);
          told.early.push(early);
          seen(event, client);
          if (event.seq < seq) return;
          client.stop();
          resolve(told);
        },
        state: (state) => told.states.push(state),
        missed: (gap) => told.missed.push(gap),
        reset: () => told.resets++,
      },
    });
    client.start();
  });
}

if (scenario === "backlog") say(await until(4, { backlog: 2 }));
else if (scenario === "complete") {
  const wishes = { backlog: 1, complete: ["status"], types: ["status"] };
  say(await until(4, wishes, (event, client) => client.send({ type: "ack", id: event.seq })));
} else if (scenario === "all") say(await until(10, { backlog: Infinity }));
else if (scenario === "reconnect") {
  // the server publishes one event for each line that is printed
  let broken = false;
  const told = await until(4, { backlog: Infinity }, (event, client) => {
    if (event.seq === 2 && !broken) {
      broken = true;
      client.socket.close();
      console.log("broken");
    }
  });
  say(told);
} else if (scenario === "newcomer") {
  const told = [];
  const broken = () => {
    client.on.hello = null;
    client.socket.close();
    console.log("broken");
  };
  const event = ({ session, seq }) => {
    told.push([session, seq]);
    if (seq < 2) return;
    client.stop();
    say(told);
  };
  const client = new Client({ url, token, on: { hello: () => setTimeout(broken), event } });
  client.start();
} else if (scenario === "stuck") {
  const client = new Client({ url });
  client.start();
  const [first, now] = [client.socket, performance.now.bind(performance)];
  performance.now = () => now() + 10_000; // it never opens
  setInterval(() => {
    if (client.socket === null || client.socket === first) return;
    say("tried again");
    process.exit();
  }, 50);
} else if (scenario === "refused") {
  const client = new Client({ url, token: "wrong", on: { state: (state, detail) => state === "refused" && done(detail) } });
  const done = (detail) => {
    client.stop();
    say(detail);
  };
  client.start();
} else if (scenario === "send") {
  const events = [];
  const sender = new Sender({ url, token, sampleRate: 16000, on: { event: (event) => events.push(event) } });
  await sender.start();
  sender.send(new Int16Array(16000).fill(7));
  await sender.stop();
  say({ session: sender.session, events });
} else if (scenario === "resume") {
  // the first server goes away in the middle; what is sent meanwhile goes to the next
  const numbers = [];
  const sender = new Sender({ url, token, sampleRate: 16000, on: { event: ({ seq }) => numbers.push(seq) } });
  await sender.start();
  for (let second = 0; second < 4; second++) {
    if (!sender.send(new Int16Array(16000).fill(second))) throw new Error("not taken");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await sender.stop();
  say({ session: sender.session, numbers });
} else if (scenario === "unwanted") {
  try {
    await new Sender({ url, token, sampleRate: 5 }).start();
  } catch (error) {
    say(error.message);
  }
}
