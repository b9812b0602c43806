using System.Collections.Concurrent;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Notifier;

/// <summary>The entries of an event's <c>clients</c>, from the identity server's own client store.</summary>
/// <remarks>
/// Those whom the server itself would tell: enabled and with an address. A client that cannot be looked up, because its store
/// fails or does not answer in time, is named by its id alone, and notifier's registry may know it.
/// One after another: an Entity Framework store bears no two queries at once.
/// </remarks>
internal sealed partial class ClientsToTell(
    IServiceScopeFactory scopes,
    LogoutSigningAlgorithm algorithm,
    TimeProvider time,
    IOptions<NotifierOptions> options,
    ILogger<ClientsToTell> logger)
{
    private readonly bool _withMetadata = options.Value.IncludeClientMetadata;

    /// <summary>Half of the sign-out's limit; the other half is the disk's.</summary>
    private readonly TimeSpan _limit = options.Value.HandoverLimit / 2;

    /// <param name="ids">The clients.</param>
    /// <param name="whom">Which of them are told; it is asked with null for a client that could not be looked up. Null: all.</param>
    /// <param name="known">What is known of them already, in a batch of one <paramref name="whom"/>.</param>
    public async Task<IReadOnlyList<SessionEndedClient>> OfAsync(
        IReadOnlyList<string> ids, Func<Client?, bool>? whom = null, KnownClients? known = null)
    {
        if (known is { GaveUp: true } || (!_withMetadata && whom is null))
        {
            return ByIdAlone(ids, whom);
        }

        try
        {
            return await LookUpAsync(ids, whom, known ?? new KnownClients()).WaitAsync(_limit, time);
        }
        catch (TimeoutException)
        {
            logger.LookUpLate(_limit);
            known?.GiveUp();
            return ByIdAlone(ids, whom);
        }
        catch (OperationCanceledException e) // the store's own, since the request's was left out
        {
            logger.LookUpFailed(e, string.Join(", ", ids));
            return ByIdAlone(ids, whom);
        }
    }

    private static SessionEndedClient[] ByIdAlone(IReadOnlyList<string> ids, Func<Client?, bool>? whom) =>
        whom?.Invoke(null) == false ? [] : ids.Select(static id => new SessionEndedClient { ClientId = id }).ToArray();

    private async Task<IReadOnlyList<SessionEndedClient>> LookUpAsync(
        IReadOnlyList<string> ids, Func<Client?, bool>? whom, KnownClients known)
    {
        try
        {
            return await LookUpInScopeAsync(ids, whom, known);
        }
        catch (OperationCanceledException)
        {
            // The browser has gone away, and stores look at the request's cancellation. Without its context there is none.
            Task<IReadOnlyList<SessionEndedClient>> again;
            using (ExecutionContext.SuppressFlow())
            {
                again = Task.Run(() => LookUpInScopeAsync(ids, whom, known));
            }

            return await again;
        }
    }

    private async Task<IReadOnlyList<SessionEndedClient>> LookUpInScopeAsync(
        IReadOnlyList<string> ids, Func<Client?, bool>? whom, KnownClients known)
    {
        await Task.Yield(); // a store that blocks its thread is waited for no longer than one that does not

        // A scope of its own, with a database context of its own: a look-up that is given up must not be in the request's way.
        await using var scope = scopes.CreateAsyncScope();
        var entries = new List<SessionEndedClient>(ids.Count);
        foreach (var id in ids)
        {
            try
            {
                if (!known.TryGetValue(id, out var entry))
                {
                    var client = await FindAsync(scope.ServiceProvider, id);
                    entry = whom?.Invoke(client) == false ? null : EntryOf(id, client);
                    known[id] = entry;
                }

                if (entry is not null)
                {
                    entries.Add(entry);
                }
            }
            catch (Exception e) when (e is not OperationCanceledException)
            {
                logger.LookUpFailed(e, id);
                entries.AddRange(ByIdAlone([id], whom));
            }
        }

        return entries;
    }

    /// <summary>The client's entry, or null if it is not to be told.</summary>
    private SessionEndedClient? EntryOf(string id, Client? client) =>
        !_withMetadata ? new SessionEndedClient { ClientId = id }
        : client is null || string.IsNullOrWhiteSpace(client.BackChannelLogoutUri) ? null
        : new SessionEndedClient
        {
            ClientId = client.ClientId,
            BackChannelLogoutUri = client.BackChannelLogoutUri,
            BackChannelLogoutSessionRequired = client.BackChannelLogoutSessionRequired,
            SigningAlgorithm = algorithm.For(client.AllowedIdentityTokenSigningAlgorithms),
        };
}

/// <summary>Clients that were looked up for a batch of endings; null for one that is not to be told.</summary>
internal sealed class KnownClients() : ConcurrentDictionary<string, SessionEndedClient?>(StringComparer.Ordinal)
{
    /// <summary>Whether their store did not answer in time: the rest of the batch does not wait for it.</summary>
    public bool GaveUp { get; private set; }

    public void GiveUp() => GaveUp = true;
}
