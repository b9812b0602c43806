// Makes the URL of notifier's front-channel page. .NET 6 or newer, nothing else.
using System;
using System.Buffers.Binary;
using System.Collections.Generic;
using System.IO;
using System.IO.Compression;
using System.Security.Cryptography;
using System.Text.Json;

public static class PageUrl
{
    /// <summary>
    /// <paramref name="baseUrl"/> and <paramref name="iss"/> are those of web.issuers; <paramref name="sid"/> may be
    /// null. A client is its id, or an array of its id and the sid of its own that it knows. One that notifier's registry
    /// may not have is an object?[] of its id, that sid or null, its frontchannel_logout_uri, and whether it needs a sid,
    /// with a key of this issuer alone.
    /// Throws ArgumentException if there are too many clients for one URL.
    /// </summary>
    public static string Of(string baseUrl, string key, string iss, string? sid, IEnumerable<object> clients)
    {
        byte[] secret = Convert.FromBase64String(key.Replace('-', '+').Replace('_', '/'));
        if (secret.Length != 32) throw new ArgumentException("the key must be 32 bytes as base64url");
        var entries = new List<object?> { iss, sid };
        entries.AddRange(clients);
        using var plain = new MemoryStream();
        using (var deflating = new ZLibStream(plain, CompressionLevel.SmallestSize, leaveOpen: true))
            deflating.Write(JsonSerializer.SerializeToUtf8Bytes(entries));
        using var aes = Aes.Create();
        aes.Key = secret[16..];
        byte[] iv = RandomNumberGenerator.GetBytes(16);
        byte[] encrypted = aes.EncryptCbc(plain.ToArray(), iv, PaddingMode.PKCS7);
        // Fernet: version, seconds since 1970, IV, what is encrypted, and the MAC of all that
        byte[] token = new byte[25 + encrypted.Length + 32];
        token[0] = 0x80;
        BinaryPrimitives.WriteInt64BigEndian(token.AsSpan(1), DateTimeOffset.UtcNow.ToUnixTimeSeconds());
        iv.CopyTo(token, 9);
        encrypted.CopyTo(token, 25);
        HMACSHA256.HashData(secret.AsSpan(0, 16), token.AsSpan(0, token.Length - 32), token.AsSpan(token.Length - 32));
        string context = Convert.ToBase64String(token).TrimEnd('=').Replace('+', '-').Replace('/', '_');
        if (context.Length > 7500) throw new ArgumentException("too many clients for one page");
        return $"{baseUrl}/front-channel/{context}";
    }
}
