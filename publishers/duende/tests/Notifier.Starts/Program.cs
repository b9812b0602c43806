// Starts a server with notifier in it, as a user's Program.cs does: nothing that ends sessions may go past notifier, else the start
// fails. Then looks whether the server shows notifier's key to its clients.
using System.Security.Cryptography;
#if IDENTITYSERVER4
using IdentityServer4.Models;
#else
using Duende.IdentityServer.Models;
#endif

var folder = Directory.CreateTempSubdirectory("notifier-starts").FullName;
Directory.SetCurrentDirectory(folder); // where the server puts keys of its own
using var key = RSA.Create(2048);
var publicKey = Path.Combine(folder, "notifier.pem");
await File.WriteAllTextAsync(publicKey, key.ExportSubjectPublicKeyInfoPem());

var builder = WebApplication.CreateBuilder(args);
builder.WebHost.UseUrls("http://127.0.0.1:0");
builder.Configuration.AddInMemoryCollection(new Dictionary<string, string?>
{
    ["Notifier:Url"] = "amqp://127.0.0.1:1",
    ["Notifier:Outbox:Folder"] = Path.Combine(folder, "outbox"),
    ["Notifier:PublicKeys:0"] = publicKey,
});
var server = builder.Services.AddIdentityServer()
    .AddInMemoryIdentityResources(new IdentityResource[] { new IdentityResources.OpenId() })
    .AddInMemoryClients(Array.Empty<Client>())
    .AddDeveloperSigningCredential(persistKey: false);
#if !IDENTITYSERVER4
server.AddServerSideSessions();
#endif
server.AddNotifier();

await using var app = builder.Build();
app.UseIdentityServer();
await app.StartAsync();
using var http = new HttpClient();
var keys = await http.GetStringAsync(app.Urls.First() + "/.well-known/openid-configuration/jwks");
await app.StopAsync();

var modulus = Convert.ToBase64String(key.ExportParameters(false).Modulus!).TrimEnd('=').Replace('+', '-').Replace('/', '_');
if (!keys.Contains(modulus, StringComparison.Ordinal))
{
    Console.Error.WriteLine($"notifier's key is not in the server's JWK Set: {keys}");
    return 1;
}

Console.WriteLine($"{typeof(Client).Assembly.GetName()} starts with notifier, and shows its key");
return 0;
