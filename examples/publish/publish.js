// Submits a task, waits for its end, then invokes a function: node publish.js BROKER_URL POOL FUNCTION
const { randomUUID } = require('node:crypto')
const amqp = require('amqplib')

const PATIENCE_MS = 120_000

async function main(url, pool, name) {
  const connection = await amqp.connect(url)
  const channel = await connection.createConfirmChannel()
  const queue = 'amq.rabbitmq.reply-to'
  const waiting = new Map()
  await channel.consume(queue, answer => waiting.get(answer?.properties.correlationId)?.(answer), { noAck: true })

  // Publishes a message and resolves with what comes back for it.
  async function ask(exchange, body, properties) {
    const correlationId = randomUUID()
    const answer = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no answer in time')), PATIENCE_MS)
      waiting.set(correlationId, message => { clearTimeout(timer); resolve(message) })
    })
    channel.publish(exchange, pool, Buffer.from(JSON.stringify(body)), {
      contentType: 'application/json', persistent: true, mandatory: true,
      messageId: randomUUID(), correlationId, replyTo: queue, ...properties,
    })
    await channel.waitForConfirms()
    return answer
  }

  const task = { commandLine: "/bin/sh -c 'echo hello from node'" }
  const ended = await ask('piecework.submit', task, { headers: { 'piecework-wait': 'completed' } })
  const told = JSON.parse(ended.content)
  if (ended.properties.type === 'refused') throw new Error(`${told.code}: ${told.message.value}`)
  process.stdout.write(told.stdout)
  if (told.exitCode !== 0) throw new Error(`the task ended with ${told.exitCode}`)

  const answer = await ask('piecework.invoke', { name: 'node' }, { type: name })
  const headers = answer.properties.headers
  if (headers['piecework-status'] !== 'ok') throw new Error(`${headers['piecework-error']}: ${headers['piecework-message']}`)
  console.log(answer.content.toString())
  await connection.close()
}

if (process.argv.length !== 5) { console.error('usage: node publish.js BROKER_URL POOL FUNCTION'); process.exit(2) }
main(...process.argv.slice(2)).catch(error => { console.error(error.message); process.exit(1) })
