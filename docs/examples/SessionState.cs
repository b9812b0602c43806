using System.Security.Cryptography;
using System.Text;

public static class SessionState
{
    /// <summary>The session_state of an authentication response (Session Management 1.0, section 2).</summary>
    public static string Create(string clientId, string redirectUri, string browserState, string? salt = null)
    {
        salt ??= Convert.ToHexString(RandomNumberGenerator.GetBytes(16)).ToLowerInvariant();
        var text = $"{clientId} {Origin(redirectUri)} {browserState} {salt}";
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes(text));
        return $"{Convert.ToHexString(hash).ToLowerInvariant()}.{salt}";
    }

    /// <summary>As browsers write it.</summary>
    private static string Origin(string uri)
    {
        var parts = new Uri(uri);
        var host = parts.HostNameType == UriHostNameType.IPv6 ? parts.Host : parts.IdnHost;
        return $"{parts.Scheme}://{host}" + (parts.IsDefaultPort ? "" : $":{parts.Port}");
    }
}
