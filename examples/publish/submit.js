// Submits a task to a pool by a message and prints what it wrote: node submit.js BROKER_URL POOL
const { randomUUID } = require('node:crypto')
const amqp = require('amqplib')

const PATIENCE_MS = 120_000

async function main(url, pool) {
  const connection = await amqp.connect(url)
  const channel = await connection.createConfirmChannel()
  const { queue } = await channel.assertQueue('', { exclusive: true })
  const timer = setTimeout(() => { console.error('no answer in time'); process.exit(1) }, PATIENCE_MS)
  const answer = new Promise(resolve => channel.consume(queue, resolve, { noAck: true }))
  const task = { commandLine: "/bin/sh -c 'echo hello from node'" }
  channel.publish('piecework.submit', pool, Buffer.from(JSON.stringify(task)), {
    contentType: 'application/json',
    persistent: true,
    mandatory: true,
    messageId: randomUUID(),
    correlationId: 'hello',
    replyTo: queue,
    headers: { 'piecework-wait': 'completed' },
  })
  await channel.waitForConfirms()
  const { properties, content } = await answer
  clearTimeout(timer)
  const told = JSON.parse(content)
  await connection.close()
  if (properties.type === 'refused') throw new Error(`${told.code}: ${told.message.value}`)
  process.stdout.write(told.stdout)
  process.exitCode = told.exitCode
}

main(...process.argv.slice(2)).catch(error => { console.error(error.message); process.exit(1) })
