// Submits a task, waits for its end, then invokes a function: java -cp CLASSES Publish.java BROKER_URL POOL FUNCTION
import com.google.gson.*;
import com.rabbitmq.client.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;

public class Publish {
    static final long PATIENCE_MS = 120_000;

    final Channel channel;
    final String queue = "amq.rabbitmq.reply-to";
    final BlockingQueue<Delivery> answers = new LinkedBlockingQueue<>();

    Publish(Channel channel) throws Exception {
        this.channel = channel;
        channel.confirmSelect();
        channel.basicConsume(queue, true, (tag, answer) -> answers.add(answer), tag -> {});
    }

    /** Publishes a message and returns what comes back for it. */
    Delivery ask(String exchange, String pool, String body, AMQP.BasicProperties.Builder properties) throws Exception {
        String id = UUID.randomUUID().toString();
        properties.contentType("application/json").deliveryMode(2).messageId(id).correlationId(id).replyTo(queue);
        channel.basicPublish(exchange, pool, true, properties.build(), body.getBytes(StandardCharsets.UTF_8));
        channel.waitForConfirmsOrDie(PATIENCE_MS);
        while (true) {
            Delivery answer = answers.poll(PATIENCE_MS, TimeUnit.MILLISECONDS);
            if (answer == null) throw new TimeoutException("no answer in time");
            if (id.equals(answer.getProperties().getCorrelationId())) return answer;
        }
    }

    static String text(Delivery answer) {
        return new String(answer.getBody(), StandardCharsets.UTF_8);
    }

    static void fail(String message) {
        System.err.println(message);
        System.exit(1);
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3) fail("usage: Publish.java BROKER_URL POOL FUNCTION");
        String pool = arguments[1], function = arguments[2];
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(arguments[0]);
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            Publish client = new Publish(channel);

            String task = "{\"commandLine\": \"/bin/sh -c 'echo hello from java'\"}";
            var wait = new AMQP.BasicProperties.Builder().headers(Map.of("piecework-wait", "completed"));
            Delivery ended = client.ask("piecework.submit", pool, task, wait);
            JsonObject told = JsonParser.parseString(text(ended)).getAsJsonObject();
            if (ended.getProperties().getType().equals("refused"))
                fail(told.get("code").getAsString() + ": " + told.getAsJsonObject("message").get("value").getAsString());
            System.out.print(told.get("stdout").getAsString());
            if (told.get("exitCode").getAsInt() != 0) fail("the task ended with " + told.get("exitCode"));

            Delivery answer = client.ask("piecework.invoke", pool, "{\"name\":\"java\"}", new AMQP.BasicProperties.Builder().type(function));
            Map<String, Object> headers = answer.getProperties().getHeaders();
            if (!headers.get("piecework-status").toString().equals("ok"))
                fail(headers.get("piecework-error") + ": " + headers.get("piecework-message"));
            System.out.println(text(answer));
        }
    }
}
