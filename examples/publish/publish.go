// Submits a task, waits for its end, then invokes a function: go run publish.go BROKER_URL POOL FUNCTION
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	patience = 120 * time.Second
	queue    = "amq.rabbitmq.reply-to"
)

type client struct {
	channel *amqp.Channel
	answers <-chan amqp.Delivery
	asked   int
}

// ask publishes a message and returns what comes back for it.
func (c *client) ask(exchange, pool string, body any, message amqp.Publishing) (amqp.Delivery, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if message.Body, err = json.Marshal(body); err != nil {
		return amqp.Delivery{}, err
	}
	c.asked++
	message.CorrelationId = fmt.Sprint(c.asked)
	message.ContentType, message.DeliveryMode, message.ReplyTo = "application/json", amqp.Persistent, queue
	confirm, err := c.channel.PublishWithDeferredConfirmWithContext(ctx, exchange, pool, true, false, message)
	if err != nil {
		return amqp.Delivery{}, err
	}
	if !confirm.Wait() {
		return amqp.Delivery{}, errors.New("the broker did not take the message")
	}
	for {
		select {
		case answer, open := <-c.answers:
			if !open {
				return answer, errors.New("the connection was closed")
			}
			if answer.CorrelationId == message.CorrelationId {
				return answer, nil
			}
		case <-ctx.Done():
			return amqp.Delivery{}, errors.New("no answer in time")
		}
	}
}

func run(url, pool, function string) error {
	connection, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err = channel.Confirm(false); err != nil {
		return err
	}
	answers, err := channel.Consume(queue, "", true, false, false, false, nil)
	if err != nil {
		return err
	}
	c := &client{channel: channel, answers: answers}

	task := map[string]string{"commandLine": "/bin/sh -c 'echo hello from go'"}
	ended, err := c.ask("piecework.submit", pool, task, amqp.Publishing{Headers: amqp.Table{"piecework-wait": "completed"}})
	if err != nil {
		return err
	}
	var told struct {
		Stdout   string
		ExitCode *int
		Code     string
		Message  struct{ Value string }
	}
	if err = json.Unmarshal(ended.Body, &told); err != nil {
		return err
	}
	if ended.Type == "refused" {
		return fmt.Errorf("%s: %s", told.Code, told.Message.Value)
	}
	fmt.Print(told.Stdout)
	if told.ExitCode == nil || *told.ExitCode != 0 {
		return errors.New("the task failed")
	}

	answer, err := c.ask("piecework.invoke", pool, map[string]string{"name": "go"}, amqp.Publishing{Type: function})
	if err != nil {
		return err
	}
	if answer.Headers["piecework-status"] != "ok" {
		return fmt.Errorf("%v: %v", answer.Headers["piecework-error"], answer.Headers["piecework-message"])
	}
	fmt.Println(string(answer.Body))
	return nil
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: publish BROKER_URL POOL FUNCTION")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
