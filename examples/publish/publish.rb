# Submits a task, waits for its end, then invokes a function: ruby publish.rb BROKER_URL POOL FUNCTION
require "bunny"
require "json"
require "securerandom"
require "timeout"

PATIENCE_SECONDS = 120
ANSWERS = "amq.rabbitmq.reply-to"

abort "usage: publish.rb BROKER_URL POOL FUNCTION" unless ARGV.size == 3
url, pool, function = ARGV
connection = Bunny.new(url).start
channel = connection.create_channel
channel.confirm_select
answers = Queue.new
channel.basic_consume(ANSWERS, "", true) { |_, properties, body| answers << [properties, body] }

# Publishes a message and returns what comes back for it.
ask = lambda do |exchange, body, **properties|
  id = SecureRandom.uuid
  channel.basic_publish(JSON.generate(body), exchange, pool, content_type: "application/json", persistent: true,
                        mandatory: true, message_id: id, correlation_id: id, reply_to: ANSWERS, **properties)
  abort "the broker did not take the message" unless channel.wait_for_confirms
  Timeout.timeout(PATIENCE_SECONDS, nil, "no answer in time") do
    loop do
      answer, text = answers.pop
      break [answer, text] if answer.correlation_id == id
    end
  end
end

answer, text = ask.call("piecework.submit", { commandLine: "/bin/sh -c 'echo hello from ruby'" }, headers: { "piecework-wait" => "completed" })
told = JSON.parse(text)
abort "#{told['code']}: #{told['message']['value']}" if answer.type == "refused"
print told["stdout"]
abort "the task ended with #{told['exitCode']}" unless told["exitCode"].zero?

answer, text = ask.call("piecework.invoke", { name: "ruby" }, type: function)
headers = answer.headers
abort "#{headers['piecework-error']}: #{headers['piecework-message']}" unless headers["piecework-status"] == "ok"
puts text
connection.close
