using System.Net.Security;
using System.Text.Json;
using RabbitMQ.Client;

var limit = TimeSpan.FromSeconds(5);
var sessionEnded = new {
    id = Guid.NewGuid().ToString(), iss = "https://id.example.com",
    sub = "248289761001", sid = "08a5019c", clients = new[] { "shop" } };
await Task.Run(() => Publish(sessionEnded, new CancellationTokenSource(limit).Token))
    .WaitAsync(limit); // from outside: RabbitMQ.Client may hear of its token much later

static async Task Publish(object ended, CancellationToken late)
{
    var factory = new ConnectionFactory { Uri = new Uri(Environment.GetEnvironmentVariable("AMQP_URL")!) };
    factory.Ssl.AcceptablePolicyErrors = SslPolicyErrors.None; // Uri lets a certificate of any name pass
    await using var connection = await factory.CreateConnectionAsync(late);
    await using var channel = await connection.CreateChannelAsync(new CreateChannelOptions(
        publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: true), late);
    var body = JsonSerializer.SerializeToUtf8Bytes(ended);
    var properties = new BasicProperties {
        ContentType = "application/json", Persistent = true, UserId = factory.UserName };
    // Throws unless it is confirmed.
    await channel.BasicPublishAsync("notifier.events", "session.ended", true, properties, body, late);
}
