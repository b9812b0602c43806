using System.Text.Json;
using RabbitMQ.Client;

var factory = new ConnectionFactory { Uri = new Uri(Environment.GetEnvironmentVariable("AMQP_URL")!) };
await using var connection = await factory.CreateConnectionAsync();
await using var channel = await connection.CreateChannelAsync(new CreateChannelOptions(
    publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: true));
var body = JsonSerializer.SerializeToUtf8Bytes(new {
    id = Guid.NewGuid().ToString(), iss = "https://id.example.com",
    sub = "248289761001", sid = "08a5019c", clients = new[] { "shop" } });
var properties = new BasicProperties { ContentType = "application/json", Persistent = true };
await channel.BasicPublishAsync("notifier.events", "session.ended", true, properties, body); // throws unless confirmed
